"""Loaded models: found in the package or the store, kept on local disk, checked by sha256, loaded once a process."""

from __future__ import annotations

import os
import platform
import shutil
import threading
import uuid
import zlib
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

import torch

from model_store import bundled_folder
from model_store.card import Card, CardInvalid, parse_card
from model_store.system import Branches, ConditionRequest, System, WeightsInvalid, load_system
from service import __version__
from service.errors import CardError, ObjectNotFound, UnknownModel, WeightsError
from service.settings import Settings
from service.store import keys
from service.store.base import ObjectStore
from workers.engine import EngineModel
from workers.engine.shape import choose_rows

WEIGHTS_FILE = "model.safetensors"
_MODELS_KEPT = 4
_CONDITIONS_KEPT = 256

Load = Callable[[Path], System]


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model ready to make twins, and what a record says of how it runs."""

    card: Card
    engine_model: EngineModel
    build: dict[str, str]
    _encoder: ThreadPoolExecutor
    _branches: OrderedDict[ConditionRequest, Branches] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def system(self) -> System:
        return self.engine_model.system

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """(rows, C, h, w): the canonical shape of every forward."""
        return (self.engine_model.rows, *self.system.sample_shape)

    @property
    def dtype_name(self) -> str:
        return str(self.system.dtype).removeprefix("torch.")

    @property
    def device_name(self) -> str:
        """The device and its make; both decide on the last bits."""
        device = self.system.device
        make = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
        return f"{device} ({make})" if make else str(device)

    def branches(self, request: ConditionRequest) -> Branches:
        """The conditions of a sample, worked out once for all samples that ask for the same. Raises what the system raises
        for a request that it cannot take."""
        with self._lock:
            if request in self._branches:
                self._branches.move_to_end(request)
                return self._branches[request]
        # one by one and on one thread, so that the bits of a condition depend on nothing else
        branches = self._encoder.submit(lambda: self.system.branches(request)).result()
        with self._lock:
            self._branches[request] = branches
            while len(self._branches) > _CONDITIONS_KEPT:
                self._branches.popitem(last=False)
        return branches


class ModelCache:
    """The process's loaded models. Of several threads that ask for one, one loads it and the others wait."""

    def __init__(self, settings: Settings, store: ObjectStore, *, cpu_threads: int, load: Load | None = None) -> None:
        self._settings = settings
        self._store = store
        self._cpu_threads = cpu_threads
        self._load = load or (lambda folder: load_system(folder, device=settings.device, dtype=settings.dtype))
        self._loaded: OrderedDict[str, LoadedModel] = OrderedDict()
        self._lock = threading.Lock()
        self._loading: dict[str, threading.Lock] = {}
        self._encoder = ThreadPoolExecutor(1, "condition", initializer=torch.set_num_threads, initargs=(1,))

    def get(self, model: str, weights_sha256: str | None = None) -> LoadedModel:
        """The model ``name@version``, loaded.

        Raises :class:`UnknownModel`, :class:`CardError`, :class:`WeightsError` (also where the weights are not those
        with ``weights_sha256``), or a store's error if it could not be fetched.
        """
        with self._lock:
            loading = self._loading.setdefault(model, threading.Lock())
        with loading:
            with self._lock:
                loaded = self._loaded.get(model)
            if loaded is None:
                loaded = self._prepare(model)
            with self._lock:
                self._loaded[model] = loaded
                self._loaded.move_to_end(model)
                # one that is still at work lives on until its last sample is done
                while len(self._loaded) > _MODELS_KEPT:
                    self._loaded.popitem(last=False)
        found = loaded.card.files[WEIGHTS_FILE].sha256 if WEIGHTS_FILE in loaded.card.files else None
        if weights_sha256 is not None and found != weights_sha256:
            raise WeightsError(
                f"{model} has weights {found}, but the job was accepted for {weights_sha256}; a version never changes its "
                "weights, so register the new ones under a new version and submit again"
            )
        return loaded

    def _prepare(self, model: str) -> LoadedModel:
        try:
            system = self._load_folder(model)
            rows = choose_rows(
                self._settings.batch_shape, system.device, system.dtype, system.sample_shape, self._cpu_threads
            )
        except CardInvalid as error:
            raise CardError(f"model {model} cannot be loaded: {error}") from error
        except (WeightsInvalid, ValueError) as error:
            raise WeightsError(f"model {model} cannot be loaded: {error}") from error
        build = build_versions(self._cpu_threads)
        return LoadedModel(system.card, EngineModel(system, rows), build, self._encoder)

    def _load_folder(self, model: str) -> System:
        name, _, version = model.partition("@")
        bundled = bundled_folder() / name / version
        if (bundled / "card.json").is_file():
            return self._load(bundled)
        folder = self._fetch(name, version)
        try:
            return self._load(folder)
        except WeightsInvalid:
            # the copy on disk may have been damaged; the store's is the true one
            shutil.rmtree(folder, ignore_errors=True)
            return self._load(self._fetch(name, version))

    def _fetch(self, name: str, version: str) -> Path:
        """The model's folder in the cache, filled from the store with what it lacks."""
        key = keys.model_card(name, version)
        try:
            text = self._store.get(key)
        except ObjectNotFound:
            raise UnknownModel(f"model {name}@{version} is neither bundled nor registered in the store") from None
        card = parse_card(text, where=key)
        folder = self._settings.model_cache_dir / name / version
        folder.mkdir(parents=True, exist_ok=True)
        for file, entry in card.files.items():
            path = folder / file
            if not path.is_file() or path.stat().st_size != entry.bytes:
                self._download(keys.model_file(name, version, file), path)
        _write_whole(folder / "card.json", text)
        return folder

    def _download(self, key: str, path: Path) -> None:
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            with temporary.open("wb") as file:
                for piece in self._store.stream(key, chunk_bytes=1 << 20):
                    file.write(piece)
            temporary.replace(path)
        except ObjectNotFound:
            raise WeightsError(f"{key} is not in the store, though the model's card lists it; register it again") from None
        finally:
            temporary.unlink(missing_ok=True)


def build_versions(cpu_threads: int) -> dict[str, str]:
    """What decides on the bits besides model, spec and device: versions, CPU features, threads."""
    return {
        "twinset": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "zlib": zlib.ZLIB_RUNTIME_VERSION,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "cpu_threads": str(cpu_threads),
    }


def _write_whole(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def _processor() -> str:
    """The CPU's model, where the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return " ".join(line.partition(":")[2].split())
    except OSError:
        pass
    return platform.processor() or platform.machine()
