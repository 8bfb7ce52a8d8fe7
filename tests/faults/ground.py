"""Where faults are tried: a store with the tiny model, a database of the broker, and real processes at work over
both."""

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
from tests.faults.nursery import Nursery
from tests.faults.points import Fault
from tests.waiting import until
from tests.workers.fakes import tiny_spec

LEASE_S = 1.0
QUICK = {
    "TWINSET_LEASE_S": str(LEASE_S),
    "TWINSET_SWEEP_INTERVAL_S": "0.2",
    "TWINSET_CHUNKS_IN_FLIGHT": "2",
    "TWINSET_WORKER_THREADS": "4",
    "TWINSET_BATCH_SHAPE": "8",
    "TWINSET_CPU_THREADS": "1",
    "TWINSET_DEVICE": "cpu",
    "TWINSET_DTYPE": "float32",
}


@dataclass
class Process:
    """A process of the test's."""

    pid: int
    log: Path

    @property
    def alive(self) -> bool:
        return self._state not in ("", "Z")

    @property
    def stopped(self) -> bool:
        return self._state == "T"

    @property
    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def kill(self) -> None:
        """SIGKILL; returns once it is gone."""
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
class Ground:
    """One test's store and queue; ``environment`` is that of all its processes."""

    folder: Path
    store: ObjectStore
    model: Path
    environment: dict[str, str]
    nursery: Nursery
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

    def worker(self, fault: Fault | None = None, environment: Mapping[str, str] | None = None) -> Process:
        """Starts a worker."""
        return self._start(["worker"], fault, environment)

    def api(self, fault: Fault | None = None, port: int = 0) -> tuple[Process, str]:
        """Starts an API; the process and its address."""
        process = self._start(["twinset", "serve", "--port", str(port)], fault, None)
        url = until(lambda: re.search(r"listens at (http://[^,\s]+)", process.said))[1]
        return process, url

    def end(self) -> None:
        """Kills what still runs."""
        for process in self.processes:
            process.send(signal.SIGKILL)
        for process in self.processes:
            until(lambda: not process.alive)

    def accept(self, *, send: int = 2, **changes: Any) -> JobSpec:
        """A job as the API accepts it, with its first ``send`` chunks in the queue."""
        card = load_card(self.model)
        values: dict[str, Any] = {
            "weights_sha256": card.files["model.safetensors"].sha256,
            "classes": card.queryable[:1],
            "size_px": card.default_size_px,
            "count": 6,
            "chunk_size": 2,
        }
        spec = tiny_spec(card, **values | changes)
        self.repository.write_spec(spec)
        self.send(spec, *range(min(send, spec.chunks)))
        return spec

    def send(self, spec: JobSpec, *chunks: int) -> None:
        """Chunks to the queue."""
        queue = JobQueue(self.settings)
        for chunk in chunks:
            queue.send_chunk(spec.job, chunk, spec.priority)
        queue.close()

    def ended(self, spec: JobSpec, *, timeout_s: float = 60.0) -> Summary:
        """The job's summary, once there is one."""
        try:
            return until(lambda: self.repository.read_summary(spec.job), timeout_s=timeout_s)
        except AssertionError:
            raise AssertionError(
                "\n".join(f"--- {process.log.name}\n{process.said[-6000:]}" for process in self.processes)
            ) from None

    def check(self, spec: JobSpec, reference: Reference) -> None:
        """Asserts that the job has every twin once, with the bytes of an undisturbed run."""
        self.ended(spec)
        findings = check_job(self.store, spec, reference)
        assert findings.clean, findings

    def _start(self, argv: list[str], fault: Fault | None, environment: Mapping[str, str] | None) -> Process:
        log = self.folder / f"{argv[0]}-{len(self.processes)}.log"
        values = {**self.environment, **(environment or {})}
        process = Process(self.nursery.start(argv, values, log, None if fault is None else vars(fault)), log)
        self.processes.append(process)
        return process
