"""The engine: one thread that runs the steps of all models' batches and waits for nothing but work."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError

import torch
from torch import Tensor

from workers.engine.model import EngineModel
from workers.engine.model_batch import ModelBatch, SampleFailed
from workers.engine.sample import SampleRequest, Waiting, needed_conditions
from workers.engine.threads import use_threads

logger = logging.getLogger(__name__)


class EngineStopped(RuntimeError):
    """The engine was stopped before the sample was done; another worker can make it."""


class Engine:
    """The process's one engine. Results are futures of x_0, ``(C, h, w)`` float32 on the device.

    ``submit`` may be called from any thread. ``Future.cancel()`` takes a sample out before its next step. A sample that
    cannot be made raises :class:`~workers.engine.model_batch.SampleFailed`; if a forward raises, only the samples in it
    fail.
    """

    def __init__(self, *, cpu_threads: int = 0, on_device_lost: Callable[[], None] | None = None) -> None:
        """``on_device_lost`` is called from the engine's thread when the process can compute no more."""
        self._cpu_threads = cpu_threads
        self._on_device_lost = on_device_lost
        self.device_lost = False
        self._inbox: deque[tuple[EngineModel, Waiting]] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._batches: dict[EngineModel, ModelBatch] = {}
        self._forwards = 0
        self._rows_used = 0
        self._preemptions = 0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def submit(self, model: EngineModel, requests: Sequence[SampleRequest]) -> list[Future[Tensor]]:
        """Queues samples and returns at once.

        Raises ValueError for a request that no step could serve, and :class:`EngineStopped` after :meth:`stop`.
        """
        batch = [Waiting(request, needed_conditions(_checked(request, model))) for request in requests]
        with self._changed:
            if self._stopped:
                raise EngineStopped("the engine has been stopped")
            self._inbox.extend((model, waiting) for waiting in batch)
            self._changed.notify()
        return [waiting.future for waiting in batch]

    def stop(self) -> None:
        """Ends the thread after the step it is in; samples not done fail with :class:`EngineStopped`."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join()

    @property
    def counts(self) -> tuple[int, int]:
        """(forwards run, rows of them that held a sample) since the start."""
        return self._forwards, self._rows_used

    @property
    def preemptions(self) -> int:
        """The number of samples preempted for another since the start."""
        return self._preemptions

    def queue(self, model: EngineModel) -> tuple[int, int]:
        """(samples of a model that wait for a slot, rows that hold one), as seen from another thread."""
        model_batch = self._batches.get(model)
        arrived = sum(other is model for other, _ in list(self._inbox))
        return (arrived, 0) if model_batch is None else (arrived + len(model_batch.waiting), model_batch.rows_held)

    def _run(self) -> None:
        if self._cpu_threads:
            use_threads(self._cpu_threads)
        with torch.inference_mode():
            while self._receive():
                # models get equal times, not equal numbers of steps, or a large one would take nearly all of it
                model = min(self._batches, key=lambda model: self._batches[model].clock)
                model_batch, since = self._batches[model], time.monotonic()
                weight = model_batch.waiting.weight
                self._step(model, model_batch)
                model_batch.clock += (time.monotonic() - since) / weight
                if not model_batch.busy:
                    # an idle model's tensors are left to the model cache
                    self._batches.pop(model, None)
        unfinished = [waiting for model_batch in self._batches.values() for waiting in model_batch.drain()]
        for waiting in [*unfinished, *(waiting for _, waiting in self._inbox)]:
            _settle(waiting, EngineStopped("the worker stopped before this sample was done"))

    def _receive(self) -> bool:
        """Moves submitted samples to their batches, sleeping while there is no work; False when stopped."""
        with self._changed:
            while not self._stopped and not self._inbox and not self._batches:
                self._changed.wait()
            if self._stopped:
                return False
            arrived = list(self._inbox)
            self._inbox.clear()
        for model, waiting in arrived:
            try:
                model_batch = self._batches.get(model) or self._create_batch(model)
            except Exception as error:
                logger.exception("model %s: no batch could be set up", model.system.card.id)
                _settle(waiting, SampleFailed(f"no batch of {model.rows} rows could be set up: {error}"))
                continue
            model_batch.add(waiting)
        return True

    def _create_batch(self, model: EngineModel) -> ModelBatch:
        try:
            model_batch = ModelBatch(model)
        except torch.OutOfMemoryError as error:
            if not model.can_halve:
                raise
            self._halve(model, error)
            model_batch = ModelBatch(model)
        # a model that comes later has no claim to the time before
        model_batch.clock = min((other.clock for other in self._batches.values()), default=0.0)
        self._batches[model] = model_batch
        return model_batch

    def _step(self, model: EngineModel, model_batch: ModelBatch) -> None:
        forwards, rows_used, preemptions = model_batch.forwards, model_batch.rows_used, model_batch.preemptions
        try:
            ended = model_batch.step()
        except torch.OutOfMemoryError as error:
            self._out_of_memory(model, model_batch, error)
            return
        except Exception as error:
            if is_device_broken(error):
                self._stop_on_lost_device(error)
                return
            self._fail(model_batch, error)
            return
        self._preemptions += model_batch.preemptions - preemptions
        self._forwards += model_batch.forwards - forwards
        self._rows_used += model_batch.rows_used - rows_used
        for waiting, result in ended:
            _settle(waiting, result)

    def _fail(self, model_batch: ModelBatch, error: Exception) -> None:
        logger.error("a forward failed, and its samples fail with the reason", exc_info=error)
        for waiting in model_batch.fail_active(error):
            _settle(waiting, SampleFailed(f"the forward failed: {type(error).__name__}: {error}"))

    def _out_of_memory(self, model: EngineModel, model_batch: ModelBatch, error: Exception) -> None:
        """Goes on with half the rows, once. All samples of the model restart, as another shape gives other bits."""
        if not model.can_halve:
            self._fail(model_batch, error)
            return
        everything = model_batch.drain()
        del self._batches[model], model_batch
        self._halve(model, error)
        with self._changed:
            self._inbox.extendleft((model, waiting) for waiting in reversed(everything))

    def _halve(self, model: EngineModel, error: Exception) -> None:
        logger.warning(
            "%s: out of memory with %d rows, going on with %d: %s",
            model.system.card.id,
            model.rows,
            model.rows // 2,
            error,
        )
        model.halve()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _stop_on_lost_device(self, error: Exception) -> None:
        """Stops the engine, so that all samples are requeued, and calls ``on_device_lost``."""
        logger.critical("the device is lost, this process cannot go on: %s", error)
        self.device_lost = True
        with self._changed:
            self._stopped = True
        if self._on_device_lost is not None:
            self._on_device_lost()


def is_device_broken(error: Exception) -> bool:
    """Whether an error leaves a CUDA context in which every later call fails too."""
    return isinstance(error, torch.AcceleratorError) or (isinstance(error, RuntimeError) and "CUDA error" in str(error))


def _checked(request: SampleRequest, model: EngineModel) -> SampleRequest:
    """The request, if a batch can take it: a bad one must fail its caller and not the batch."""
    total = model.system.card.sampler.train_timesteps
    if not 0 <= request.seed < 2**63:
        raise ValueError(f"seed is {request.seed}; it must lie between 0 and 2**63 - 1")
    if not 1 <= request.steps <= total:
        raise ValueError(f"steps is {request.steps}; the model's schedule allows 1 to {total}")
    needed = dict(model.system.condition_shapes)
    for condition in (side for inputs in request.all_inputs for side in (inputs.cond, inputs.uncond)):
        found = {name: tuple(value.shape) for name, value in condition.items()}
        if found != needed:
            raise ValueError(f"the condition has shapes {found}; those of {model.system.card.id} have {needed}")
    windows, given = 1 if request.windows is None else len(request.windows), len(request.all_inputs)
    if given not in (1, windows):
        raise ValueError(f"there are {given} conditions for {windows} windows; give one for all, or one for each")
    if request.windows is not None and (side := model.system.sample_shape[-1]) != request.windows.side:
        raise ValueError(f"the windows have a side of {request.windows.side}; {model.system.card.id} draws {side}")
    if not 0.0 <= request.eta <= 1.0:
        raise ValueError(f"eta is {request.eta}; it must lie between 0 and 1")
    return request


def _settle(waiting: Waiting, result: Tensor | Exception) -> None:
    """Sets the result, unless the caller cancelled in the meantime."""
    try:
        if isinstance(result, Exception):
            waiting.future.set_exception(result)
        else:
            waiting.future.set_result(result)
    except InvalidStateError:
        logger.debug("a sample was cancelled as it ended")
