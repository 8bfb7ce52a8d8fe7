"""Test rig of the fault tests: a store with the tiny model, a broker database, and real processes."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis import Redis

from model_store.card import load_card
from service.broker.queues import JobQueue
from service.jobs.repository import JobRepository
from service.jobs.spec import JobSpec, Summary
from service.settings import Settings
from service.store import keys
from service.store.base import ObjectStore
from tests.faults.checker import Reference, check_job
from tests.faults.points import ProcessFault
from tests.faults.prefork import Prefork
from tests.waiting import until
from tests.workers.fakes import tiny_spec

LEASE_S = 1.0
FAST_SETTINGS = {
    "TWINSET_LEASE_S": str(LEASE_S),
    "TWINSET_SWEEP_INTERVAL_S": "0.2",
    "TWINSET_CHUNKS_IN_FLIGHT": "2",
    "TWINSET_WORKER_THREADS": "4",
    "TWINSET_BATCH_SHAPE": "8",
    "TWINSET_CPU_THREADS": "1",
    "TWINSET_DEVICE": "cpu",
    "TWINSET_DTYPE": "float32",
}
OTHER_MAKE = {"TWINSET_DTYPE": "bfloat16"}
"""The environment of a worker of another make: of the same twin it gets other bytes."""


@dataclass
class Process:
    """A worker or API process of a test."""

    pid: int
    log: Path

    @property
    def alive(self) -> bool:
        return self._state not in ("", "Z")

    @property
    def stopped(self) -> bool:
        return self._state == "T"

    @property
    def log_text(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def kill(self) -> None:
        """Kills the process with SIGKILL and waits until it is gone."""
        self.send(signal.SIGKILL)
        until(lambda: not self.alive)

    def send(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    @property
    def _state(self) -> str:
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return ""


@dataclass
class Rig:
    """The store, the queue and the processes of one test; ``environment`` is that of its processes."""

    folder: Path
    store: ObjectStore
    model: Path
    environment: dict[str, str]
    prefork: Prefork
    processes: list[Process] = field(default_factory=list)

    def __post_init__(self) -> None:
        card = load_card(self.model)
        for file in card.files:
            self.store.put(keys.model_file(card.name, card.version, file), (self.model / file).read_bytes())
        self.store.put(keys.model_card(card.name, card.version), (self.model / "card.json").read_bytes())
        self.repository = JobRepository(self.store)

    @property
    def settings(self) -> Settings:
        names = {
            name.removeprefix("TWINSET_").lower(): value
            for name, value in self.environment.items()
            if name.startswith("TWINSET_")
        }
        return Settings(**names)

    @property
    def redis(self) -> Redis:
        return Redis.from_url(self.settings.broker_url, decode_responses=True)

    def worker(self, fault: ProcessFault | None = None, environment: Mapping[str, str] | None = None) -> Process:
        """Starts a worker."""
        return self._start(["worker"], fault, environment)

    def bulk_worker(self) -> Process:
        """Starts a bulk worker."""
        return self._start(["twinset", "worker", "--bulk"], None, None)

    def api(self, fault: ProcessFault | None = None, port: int = 0) -> tuple[Process, str]:
        """Starts an API; returns the process and its URL."""
        process = self._start(["twinset", "serve", "--port", str(port)], fault, None)
        url = until(lambda: re.search(r"listens at (http://[^;\s]+)", process.log_text))[1]
        return process, url

    def end(self) -> None:
        """Kills all processes that still run."""
        for process in self.processes:
            process.send(signal.SIGKILL)
        until(lambda: not any(process.alive for process in self.processes))

    def accept(self, *, send: int = 2, **changes: Any) -> JobSpec:
        """Accepts a job as the API does, and queues its first ``send`` chunks."""
        card = load_card(self.model)
        values: dict[str, Any] = {
            "weights_sha256": card.files["model.safetensors"].sha256,
            "classes": card.queryable[:1],
            "size": card.default_size_px,
            "count": 6,
            "chunk_size": 2,
        }
        spec = tiny_spec(card, **values | changes)
        self.repository.write_spec(spec)
        self.send(spec, *range(min(send, spec.chunks)))
        return spec

    def send(self, spec: JobSpec, *chunks: int) -> None:
        """Queues chunks of a job."""
        queue = JobQueue(self.settings)
        for chunk in chunks:
            queue.send_chunk(spec.job, chunk, spec.priority, spec.tenant)
        queue.close()

    def wait_until_ended(self, spec: JobSpec, *, timeout_s: float = 60.0) -> Summary:
        """Waits for the job's summary and returns it."""
        try:
            return until(lambda: self.repository.read_summary(spec.job), timeout_s=timeout_s)
        except AssertionError:
            raise AssertionError(
                "\n".join(f"--- {process.log.name}\n{process.log_text[-6000:]}" for process in self.processes)
            ) from None

    def check(self, spec: JobSpec, reference: Reference) -> None:
        """Asserts that the job has every twin once, with the bytes of an undisturbed run."""
        self.wait_until_ended(spec)
        findings = check_job(self.store, spec, reference)
        assert findings.clean, findings

    def _start(self, argv: list[str], fault: ProcessFault | None, environment: Mapping[str, str] | None) -> Process:
        log = self.folder / f"{argv[0]}-{len(self.processes)}.log"
        values = {**self.environment, **(environment or {})}
        process = Process(self.prefork.start(argv, values, log, None if fault is None else vars(fault)), log)
        self.processes.append(process)
        return process
