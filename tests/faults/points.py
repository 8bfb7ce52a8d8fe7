"""Fault points: places in a process's work where it kills or stops itself, so that tests need no timing.

They wrap the store, the leases and the network of a test's process; the product does not know them.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LEASE_TAKEN = "lease taken"
MID_DENOISE = "mid-denoise"
BEFORE_IMAGE = "before image"
AFTER_IMAGE = "after image"
AFTER_MASK = "after mask"
BEFORE_SHARD = "before shard"
AFTER_SHARD = "after shard"
BEFORE_RECORD = "before record"
AFTER_RECORD = "after record, before acknowledgement"
BEFORE_SUMMARY = "before summary"
AFTER_SPEC = "between spec and queue"
WORKER_POINTS = (LEASE_TAKEN, MID_DENOISE, AFTER_IMAGE, AFTER_MASK, BEFORE_RECORD, AFTER_RECORD, BEFORE_SUMMARY)

_PUTS = {
    BEFORE_IMAGE: ("/images/", True),
    BEFORE_SHARD: ("/shards/", True),
    AFTER_IMAGE: ("/images/", False),
    AFTER_MASK: ("/masks/", False),
    AFTER_SHARD: ("/shards/", False),
    BEFORE_RECORD: ("/chunks/", True),
    AFTER_RECORD: ("/chunks/", False),
    BEFORE_SUMMARY: ("/summary.json", True),
    AFTER_SPEC: ("/spec.json", False),
}


@dataclass
class ProcessFault:
    """At ``point``, for the ``nth`` time, the process sends itself ``signal``."""

    point: str
    signal: int = signal.SIGKILL
    nth: int = 1

    def trigger(self) -> None:
        """Counts a visit; at the nth one the process sends itself the signal."""
        self.nth -= 1
        if self.nth == 0:
            os.kill(os.getpid(), self.signal)


class FaultingStore:
    """A store that triggers the fault before or after the write of a certain key."""

    def __init__(self, store: Any, fault: ProcessFault) -> None:
        self._store, self._fault = store, fault
        self._part, self._before = _PUTS[fault.point]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put(self, key: str, data: bytes, **options: Any) -> Any:
        return self._write(self._store.put, key, data, **options)

    def put_file(self, key: str, path: Path, **options: Any) -> Any:
        return self._write(self._store.put_file, key, path, **options)

    def _write(self, write: Callable[..., Any], key: str, *arguments: Any, **options: Any) -> Any:
        hit = self._part in key and key.startswith("jobs/")
        if hit and self._before:
            self._fault.trigger()
        info = write(key, *arguments, **options)
        if hit and not self._before:
            self._fault.trigger()
        return info


def install(fault: ProcessFault) -> None:
    """Installs the fault in this process."""
    if fault.point == LEASE_TAKEN:
        from workers.runtime.leases import Leases

        Leases.take = _then_trigger(Leases.take, fault)  # type: ignore[method-assign]
    elif fault.point == MID_DENOISE:
        import workers.models.cache as models

        models.load_system = _trigger_at_forward(models.load_system, fault)
    else:
        import service.api.app as app
        import service.store as package
        import service.store.opening as opening
        import workers.generation.worker as worker

        original = opening.open_store
        for module in (app, package, opening, worker):
            module.open_store = lambda settings: FaultingStore(original(settings), fault)  # type: ignore[attr-defined]


def _then_trigger(method: Callable[..., Any], fault: ProcessFault) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        found = method(*arguments)
        fault.trigger()
        return found

    return call


def _trigger_at_forward(load: Callable[..., Any], fault: ProcessFault) -> Callable[..., Any]:
    def load_and_wrap(*arguments: Any, **options: Any) -> Any:
        system = load(*arguments, **options)
        forward = system.forward

        def counted(*inputs: Any, **options: Any) -> Any:
            fault.trigger()
            return forward(*inputs, **options)

        system.forward = counted
        return system

    return load_and_wrap
