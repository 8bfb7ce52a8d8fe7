"""``python -m workers.trainings.child FOLDER``: trains the stage that FOLDER orders, as ``twinset train`` would.

SIGTERM ends it after the current iteration, with a checkpoint.
"""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
import traceback
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers.runtime.malloc import keep_memory
from workers.trainings import folder as messages
from workers.trainings.folder import Begun, Failure, StageOrder, StageProgress, StageResult, read_message, write_message

if TYPE_CHECKING:
    import torch

    from workers.training.recipes import Recipe

_REPORT_INTERVAL_S = 0.25
_RUSAGE_BYTES = 1 if sys.platform == "darwin" else 1024
"""Bytes in the unit of ru_maxrss."""
_PART_SUFFIXES = (".safetensors", ".json")


def main(folder: Path) -> int:
    """Trains and writes the result; the exit code. Errors go to ``failure.json``."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    keep_memory()
    order = read_message(folder / messages.ORDER, StageOrder)
    assert order is not None, "the worker writes the order first"
    try:
        _train(folder, order)
    except Exception as error:
        traceback.print_exc()
        write_message(folder / messages.FAILURE, Failure(kind=_kind(error), reason=_reason(error)))
        return 1
    return 0


def _train(folder: Path, order: StageOrder) -> None:
    from accelerate import Accelerator

    from service.trainings.options import OPTIONS
    from workers.data.training_set import TrainingSet
    from workers.training.recipes import Order, build, mixed_precision

    out = folder / order.run
    options = OPTIONS[order.system].model_validate(order.options)
    cpu = order.device == "cpu"
    accelerator = Accelerator(cpu=cpu, mixed_precision=mixed_precision(options, cpu=cpu))
    recipe = build(
        Order(
            options=options,
            data=order.data,
            out=out,
            parts=order.parts,
            name=order.name,
            open_data=partial(TrainingSet.open, tenant=order.tenant),
        ),
        accelerator,
    )
    trainer, main_process = recipe.trainer, accelerator.is_main_process
    end = min(trainer.settings.iterations, order.until or trainer.settings.iterations)
    if main_process:
        write_message(
            folder / messages.BEGUN,
            Begun(
                iterations=trainer.settings.iterations,
                start=trainer.start,
                parameters=_parameters(recipe),
                device=str(accelerator.device),
                machine=_machine(accelerator.device),
                notices=tuple(trainer.notices),
            ),
        )
    if trainer.start < end:
        trainer.run(
            checkpoint_every=options.checkpoint_every,
            sample_every=options.sample_every,
            log_every=options.log_every,
            until=end,
            on_iteration=_Reporter(folder, order.share, main_process, accelerator.device),
        )
    else:
        trainer.close()
    if main_process:
        before = set(out.iterdir())
        recipe.finish(end)
        figures: dict[str, Any] = {}
        if order.evaluate:
            from workers.trainings.evaluating import evaluated

            figures = evaluated(out / "model", order)
        write_message(
            folder / messages.RESULT,
            StageResult(iterations=end, files=_files(out, before), figures=figures),
        )
    accelerator.wait_for_everyone()


class _Reporter:
    """Writes the progress a few times a second, and gives way to other work on the device if it is told to."""

    def __init__(self, folder: Path, share: float, main_process: bool, device: torch.device) -> None:
        self._progress, self._yield = folder / messages.PROGRESS, folder / messages.YIELD
        self._share, self._main_process, self._device = share, main_process, device
        self._began = self._last = time.monotonic()
        self._waited = 0.0
        self._reported = float("-inf")

    def __call__(self, done: int) -> None:
        now = time.monotonic()
        if self._main_process and now - self._reported >= _REPORT_INTERVAL_S:
            self._reported = now
            seconds = now - self._began - self._waited
            progress = StageProgress(iteration=done, seconds=seconds, memory_bytes=_memory_bytes(self._device))
            write_message(self._progress, progress)
        if self._share < 1 and self._yield.exists():
            pause_s = (now - self._last) * (1 / self._share - 1)
            until = now + pause_s
            while time.monotonic() < until and self._yield.exists():
                time.sleep(min(0.05, max(0.0, until - time.monotonic())))
            self._waited += time.monotonic() - now
        self._last = time.monotonic()


def _machine(device: torch.device) -> dict[str, str]:
    """The machine type: where it is equal, an iteration takes about as long."""
    import torch

    from workers.models.loaded_model import device_make

    found = {"device": device_make(device), "torch": torch.__version__}
    if device.type != "cuda":
        found |= {"cpu": torch.backends.cpu.get_cpu_capability(), "cpu_threads": str(torch.get_num_threads())}
    return found


def _memory_bytes(device: torch.device) -> int:
    """The most that this process has taken of the device's memory."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RUSAGE_BYTES


def _parameters(recipe: Recipe) -> int:
    network = getattr(recipe.trainer, "network", None)
    return 0 if network is None else sum(parameter.numel() for parameter in network.parameters())


def _files(out: Path, before: set[Path]) -> tuple[str, ...]:
    """The result's files: those of ``model/``, or the part's new ones."""
    model = out / "model"
    if model.is_dir():
        return tuple(sorted(f"model/{path.name}" for path in model.iterdir() if path.is_file()))
    found = (path.name for path in set(out.iterdir()) - before if path.suffix in _PART_SUFFIXES)
    return tuple(sorted(name for name in found if not name.startswith((".", "checkpoint"))))


def _kind(error: Exception) -> Any:
    from safetensors import SafetensorError

    from model_store.features import FeaturesUnavailable
    from model_store.interface import WeightsInvalid
    from model_store.text import TextEncoderMissing
    from service.errors import StoreUnavailable, TwinsetError

    if isinstance(error, (OSError, SafetensorError, StoreUnavailable, MemoryError)):
        return "machine"
    invalid = (ValueError, FloatingPointError, FeaturesUnavailable, WeightsInvalid, TextEncoderMissing, TwinsetError)
    return "invalid" if isinstance(error, invalid) else "unknown"


def _reason(error: Exception) -> str:
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
    text = str(error)
    return text if isinstance(error, (ValueError, FloatingPointError)) and text else f"{type(error).__name__}: {text}"


def _end_with_parent() -> None:
    """Ends this process with its parent: of several, only the launcher watches the worker."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.exit(main(Path(sys.argv[1])))
