"""The cache of a process's loaded models within a memory budget: the least recently used one is dropped for another.

A model in use is never dropped. If the budget is full of models in use, a caller that needs another model waits. Once
it has waited for :data:`WAIT_TIMEOUT_S`, the models in its way get no new work until it has been served.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from functools import partial

import torch

from model_store.card import CardInvalid
from model_store.interface import WeightsInvalid
from model_store.loading import choose_device, choose_dtype, load_system
from model_store.text import TextEncoderMissing
from service.errors import CardError, UnknownModel, WeightsError
from service.settings import Settings
from service.store.base import ObjectStore
from workers.engine import EngineModel
from workers.engine.forward import EAGER, ForwardWay
from workers.engine.shape import check_rows
from workers.engine.threads import run_in_own_thread, use_threads
from workers.models.batch_shapes import shape_for
from workers.models.disk_cache import DiskCache
from workers.models.files import WEIGHTS_FILE, Load, ModelFiles
from workers.models.loaded_model import LoadedModel, build_versions, machine_type

__all__ = ["Load", "LoadedModel", "ModelCache", "build_versions"]

logger = logging.getLogger(__name__)
_LASTING = (UnknownModel, CardError, WeightsError, TextEncoderMissing, ImportError)
WAIT_TIMEOUT_S = 10.0
_POLL_INTERVAL_S = 0.25
_FAILURE_HOLDS_S = 10.0
"""A model that could not be loaded is loaded again after so long, not for each chunk that asks for it."""


class ModelCache:
    """Loaded models by their keys, which no two models share; one thread loads a model, and others wait for it."""

    def __init__(
        self,
        settings: Settings,
        store: ObjectStore,
        *,
        cpu_threads: int,
        load: Load | None = None,
        on_loaded: Callable[[LoadedModel], None] | None = None,
    ) -> None:
        """``on_loaded`` is called with each loaded model before its first use."""
        self._settings = settings
        self._store = store
        self.cpu_threads = cpu_threads
        self._files = ModelFiles(
            store,
            DiskCache(settings.model_cache_dir, settings.model_cache_max_gb * 10**9),
            load or (lambda folder: load_system(folder, device=settings.device, dtype=settings.dtype)),
        )
        self._on_loaded = on_loaded
        self._budget = settings.model_memory_bytes or _half_of_memory(settings.device)
        self._loaded: OrderedDict[str, LoadedModel] = OrderedDict()
        self._uses: dict[str, int] = {}
        self._loading: dict[str, Future[LoadedModel]] = {}
        self._failed: dict[str, tuple[Future[LoadedModel], float]] = {}
        self._waiting: OrderedDict[str, float] = OrderedDict()
        self._changed = threading.Condition()
        self._loader = ThreadPoolExecutor(1, "load")
        self._encoder = ThreadPoolExecutor(1, "condition", initializer=use_threads, initargs=(1,))

    @property
    def loaded(self) -> list[LoadedModel]:
        """The models in memory, the least recently used first."""
        with self._changed:
            return list(self._loaded.values())

    def get(self, model: str, weights_sha256: str | None = None) -> LoadedModel:
        """As :meth:`use`, for a caller that does not mind if the model is dropped while it looks at it."""
        with self.use(model, weights_sha256) as loaded:
            return loaded

    @contextmanager
    def use(
        self, model: str, weights_sha256: str | None = None, while_waiting: Callable[[], None] = lambda: None
    ) -> Iterator[LoadedModel]:
        """The model with this key, held in memory until the block ends.

        ``while_waiting`` is called again and again until the model is loaded. Raises :class:`UnknownModel`,
        :class:`CardError`, :class:`WeightsError` (also if the weights do not have ``weights_sha256``, or are larger
        than the budget), a store's error if the model could not be fetched, or what ``while_waiting`` raises.
        """
        loaded = self._acquire(model, while_waiting)
        try:
            _check_weights(loaded, weights_sha256)
            yield loaded
        finally:
            with self._changed:
                self._uses[model] -= 1
                self._changed.notify_all()

    def _acquire(self, model: str, while_waiting: Callable[[], None]) -> LoadedModel:
        while True:
            with self._changed:
                if model in self._loaded and not self._must_yield(model):
                    self._loaded.move_to_end(model)
                    self._uses[model] = self._uses.get(model, 0) + 1
                    return self._loaded[model]
                loading = None if model in self._loaded else self._loading.get(model) or self._failure(model)
                if loading is None and model not in self._loaded:
                    loading = self._loading[model] = self._loader.submit(
                        run_in_own_thread, self.cpu_threads, partial(self._prepare, model)
                    )
                    loading.add_done_callback(partial(self._end_loading, model))
                if loading is None:
                    self._changed.wait(_POLL_INTERVAL_S)
            if loading is not None:
                wait_for([loading], timeout=_POLL_INTERVAL_S)
                if loading.done():
                    # every caller that waited gets what loading raised
                    loading.result()
            while_waiting()

    def _end_loading(self, model: str, ended: Future[LoadedModel]) -> None:
        with self._changed:
            self._loading.pop(model, None)
            if isinstance(ended.exception(), _LASTING):
                self._failed[model] = ended, time.monotonic()
            self._changed.notify_all()

    def _failure(self, model: str) -> Future[LoadedModel] | None:
        """The loading of the model that failed a moment ago, if it did for a reason that lasts."""
        ended, at = self._failed.get(model, (None, 0.0))
        if ended is not None and time.monotonic() - at > _FAILURE_HOLDS_S:
            del self._failed[model]
            return None
        return ended

    def _must_yield(self, model: str) -> bool:
        """Whether another model has waited too long for the memory that this one holds."""
        return any(
            time.monotonic() - since > WAIT_TIMEOUT_S for other, since in self._waiting.items() if other != model
        )

    def _prepare(self, model: str) -> LoadedModel:
        """Frees memory for a model and loads it, on the loader's thread."""
        try:
            self._free_memory(model, self._estimate(model))
            loaded = self._load(model)
            with self._changed:
                self._loaded[model] = loaded
                # the weights may be larger in memory than their files
                while self._bytes_held() > self._budget and self._drop_one_for(model):
                    pass
                self._changed.notify_all()
            return loaded
        except CardInvalid as error:
            raise CardError(f"model {model} cannot be loaded: {error}") from error
        except (WeightsInvalid, ValueError) as error:
            raise WeightsError(f"model {model} cannot be loaded: {error}") from error

    def _load(self, model: str) -> LoadedModel:
        system = self._files.load(model)
        settings = self._settings
        rows = (
            check_rows(settings.batch_shape)
            if settings.batch_shape
            else shape_for(self._store, model, system, machine_type(system, self.cpu_threads)).rows
        )
        fixed = settings.shapes == "fixed"
        graph = settings.cuda_graphs and system.device.type == "cuda"
        way = ForwardWay(compiled=settings.compile and fixed, graph=graph and fixed)
        engine_model = EngineModel(system, rows, settings.shapes, way)
        _warm(engine_model)
        loaded = LoadedModel(model, system.card, engine_model, build_versions(self.cpu_threads), self._encoder)
        if self._on_loaded is not None:
            self._on_loaded(loaded)
        return loaded

    def _estimate(self, model: str) -> int:
        """The most bytes that the weights can take: a file holds at least 2 bytes a number."""
        _, dtype = device_and_dtype(self._settings)
        return sum(file.bytes for file in self._files.card(model).files.values()) * dtype.itemsize // 2

    def _free_memory(self, model: str, need: int) -> None:
        """Drops models until ``need`` more bytes fit, waiting for those in use."""
        if need > self._budget:
            raise WeightsError(
                f"{model} takes up to {need} bytes of memory, and all models together may take {self._budget}; "
                "raise TWINSET_MODEL_MEMORY_BYTES on this worker"
            )
        with self._changed:
            self._waiting[model] = time.monotonic()
            try:
                while self._bytes_held() + need > self._budget:
                    if not self._drop_one_for(model):
                        self._changed.wait(_POLL_INTERVAL_S)
            finally:
                self._waiting.pop(model, None)

    def _bytes_held(self) -> int:
        return sum(loaded.memory_bytes for loaded in self._loaded.values())

    def _drop_one_for(self, model: str) -> bool:
        """Drops the least recently used model that is not in use; False if there is none."""
        idle = next((name for name in self._loaded if name != model and not self._uses.get(name)), None)
        if idle is None:
            return False
        logger.info("dropped %s from memory for %s", idle, model)
        del self._loaded[idle]
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return True


def device_and_dtype(settings: Settings) -> tuple[torch.device, torch.dtype]:
    """The device and dtype of the networks."""
    device = choose_device(settings.device)
    return device, choose_dtype(settings.dtype, device)


def _warm(model: EngineModel) -> None:
    """Builds the forward. One that cannot be compiled or captured runs eagerly, and the record says so."""
    try:
        _ = model.forward
    except torch.OutOfMemoryError:
        # the engine will halve the shape at the first step
        logger.warning("%s: out of memory while its forward over %d rows was built", model.system.card.id, model.rows)
    except Exception:
        logger.exception("%s runs eagerly, as its forward could not be built as %s", model.system.card.id, model.way)
        model.way = EAGER


def _check_weights(loaded: LoadedModel, weights_sha256: str | None) -> None:
    files = loaded.card.files
    found = files[WEIGHTS_FILE].sha256 if WEIGHTS_FILE in files else None
    if weights_sha256 is not None and found != weights_sha256:
        raise WeightsError(
            f"{loaded.card.id} has weights {found}, but the job was accepted for {weights_sha256}; "
            "a version never changes its weights, so register the new ones under a new version and submit again"
        )


def _half_of_memory(device: str) -> int:
    """Half of the GPU's memory, or of the machine's, in bytes: the rest is for the batches."""
    if device != "cpu" and torch.cuda.is_available():
        index = torch.device(device).index if device.startswith("cuda:") else None
        return torch.cuda.get_device_properties(index or 0).total_memory // 2
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
