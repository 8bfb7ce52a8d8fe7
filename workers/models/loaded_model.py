"""A loaded model, and what a record says of how it runs."""

from __future__ import annotations

import platform
import threading
import zlib
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property

import torch

from model_store.card import ModelCard
from model_store.interface import ConditionRequest, GuidanceInputs, System
from model_store.weights import memory_bytes
from service import __version__
from workers.engine import EngineModel
from workers.engine.peak import flops_per_row

_CONDITIONS_KEPT = 256


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model ready to make twins."""

    card: ModelCard
    engine_model: EngineModel
    versions: dict[str, str]
    _encoder: ThreadPoolExecutor
    _guidance_inputs: OrderedDict[ConditionRequest, GuidanceInputs] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def system(self) -> System:
        return self.engine_model.system

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """(rows, C, h, w): the canonical shape of every forward; where shapes float, the largest."""
        return (self.engine_model.rows, *self.system.sample_shape)

    @property
    def build(self) -> dict[str, str]:
        """What decides on the bits besides model, spec, shape and device."""
        return self.versions | {"forward": str(self.engine_model.way)}

    @property
    def dtype_name(self) -> str:
        return str(self.system.dtype).removeprefix("torch.")

    @property
    def device_name(self) -> str:
        """The device and its make; both decide on the last bits."""
        return device_name(self.system.device)

    @cached_property
    def memory_bytes(self) -> int:
        """Bytes of its weights in memory."""
        return memory_bytes(self.system)

    @cached_property
    def flops_per_row(self) -> int:
        """Floating-point operations of one row of a forward."""
        return flops_per_row(self.system)

    def guidance_inputs(self, request: ConditionRequest) -> GuidanceInputs:
        """The conditions of a sample, worked out once for all samples that ask for the same. Raises what the system
        raises for a request that it cannot take."""
        with self._lock:
            if request in self._guidance_inputs:
                self._guidance_inputs.move_to_end(request)
                return self._guidance_inputs[request]
        # one by one and on one thread, so that the bits of a condition depend on nothing else
        guidance_inputs = self._encoder.submit(lambda: self.system.guidance_inputs(request)).result()
        with self._lock:
            self._guidance_inputs[request] = guidance_inputs
            while len(self._guidance_inputs) > _CONDITIONS_KEPT:
                self._guidance_inputs.popitem(last=False)
        return guidance_inputs


def device_name(device: torch.device) -> str:
    """``cpu`` or ``cuda:0``, with its make."""
    make = device_make(device)
    return f"{device} ({make})" if make else str(device)


def device_make(device: torch.device) -> str:
    """The GPU's or the CPU's own name; empty where nobody tells."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()


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


def machine_type(system: System, cpu_threads: int) -> dict[str, str]:
    """What makes two machines alike to a model's forward: where this is equal, so are the bits and roughly the
    speed."""
    machine = {
        "device": device_make(system.device),
        "dtype": str(system.dtype).removeprefix("torch."),
        "torch": torch.__version__,
    }
    if system.device.type != "cuda":
        machine |= {"cpu": torch.backends.cpu.get_cpu_capability(), "cpu_threads": str(cpu_threads)}
    return machine


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
