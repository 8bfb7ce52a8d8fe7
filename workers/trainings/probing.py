"""Probe of a stage: what its first iterations took on this machine, stored for the estimates of later trainings."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime

from service.errors import StoreUnavailable
from service.runs.spec import RunSpec
from service.trainings.probes import PROBE_ITERATIONS, Fingerprints, Probe, put_probe
from service.trainings.work import TrainingWork
from workers.bulk.worker import BulkWorker
from workers.trainings.folder import Begun, StageProgress

logger = logging.getLogger(__name__)
_WARM_UP = 5
"""First iterations that are not measured: kernels are chosen and caches filled meanwhile."""


@dataclass
class Prober:
    """Measures a stage once, between two reports of its child."""

    worker: BulkWorker
    spec: RunSpec
    number: int
    devices: int
    _from: StageProgress | None = None
    _done: bool = False

    def note(self, begun: Begun, progress: StageProgress, *, is_yielding: bool) -> None:
        """Looks at a report. Iterations beside other work on the device are not measured."""
        if self._done or progress.iteration - begun.start < _WARM_UP:
            return
        if is_yielding or self._from is None:
            self._from = progress
            return
        measured = progress.iteration - self._from.iteration
        seconds = progress.seconds - self._from.seconds
        if measured < PROBE_ITERATIONS or seconds <= 0:
            return
        self._done = True
        work = TrainingWork.model_validate(self.spec.work)
        try:
            put_probe(
                self.worker.store,
                Probe(
                    system=work.stages[self.number].system,
                    network=Fingerprints(self.worker.runs, self.spec.tenant).of(work, self.number),
                    machine=begun.machine,
                    device=begun.machine.get("device") or begun.device,
                    devices=self.devices,
                    seconds_per_iteration=seconds / measured,
                    iterations=measured,
                    parameters=begun.parameters,
                    memory_bytes=progress.memory_bytes,
                    at=datetime.now(UTC),
                ),
            )
        except StoreUnavailable as error:
            logger.warning("run=%s: its probe was not stored: %s", self.spec.run, error.detail)
