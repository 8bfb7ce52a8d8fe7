"""A loaded model, and what records say of how it runs."""

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

_MAX_CONDITIONS = 256


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model ready to make twins. ``key`` names it for any tenant, as ``card.id`` alone does not."""

    key: str
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
        """(rows, C, h, w): the canonical shape of every forward; with floating shapes, the largest."""
        return (self.engine_model.rows, *self.system.sample_shape)

    @property
    def build(self) -> dict[str, str]:
        """What decides the bits besides model, spec, shape and device: versions and the way of the forward."""
        return self.versions | {"forward": str(self.engine_model.way)}

    @property
    def dtype_name(self) -> str:
        return str(self.system.dtype).removeprefix("torch.")

    @property
    def device_name(self) -> str:
        """The device and its make, as both decide the last bits."""
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
        """The conditions of a sample, encoded once for all samples with the same request.

        Raises what the system raises for a request that it cannot take.
        """
        with self._lock:
            if request in self._guidance_inputs:
                self._guidance_inputs.move_to_end(request)
                return self._guidance_inputs[request]
        # encoded one by one on one thread, so that the bits of a condition depend on nothing else
        guidance_inputs = self._encoder.submit(lambda: self.system.guidance_inputs(request)).result()
        with self._lock:
            self._guidance_inputs[request] = guidance_inputs
            while len(self._guidance_inputs) > _MAX_CONDITIONS:
                self._guidance_inputs.popitem(last=False)
        return guidance_inputs


def device_name(device: torch.device) -> str:
    """The device with its make, such as ``cuda:0 (NVIDIA H100)``."""
    make = device_make(device)
    return f"{device} ({make})" if make else str(device)


def device_make(device: torch.device) -> str:
    """The name of the GPU or CPU; empty if it is unknown."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()


def build_versions(cpu_threads: int) -> dict[str, str]:
    """What decides the bits besides model, spec and device: versions, CPU features, threads."""
    return {
        "twinset": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "zlib": zlib.ZLIB_RUNTIME_VERSION,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "cpu_threads": str(cpu_threads),
    }


def machine_type(system: System, cpu_threads: int) -> dict[str, str]:
    """The machine type: on machines where it is equal, a forward gives the same bits at roughly the same speed."""
    machine = {
        "device": device_make(system.device),
        "dtype": str(system.dtype).removeprefix("torch."),
        "torch": torch.__version__,
    }
    if system.device.type != "cuda":
        machine |= {"cpu": torch.backends.cpu.get_cpu_capability(), "cpu_threads": str(cpu_threads)}
    return machine


def _processor() -> str:
    """The CPU's model name."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return " ".join(line.partition(":")[2].split())
    except OSError:
        pass
    return platform.processor() or platform.machine()
