"""One stage of a training: its child process is watched, and what it writes goes into the store.

The child resumes at the last checkpoint that has a record, so whichever worker takes the stage over, the losses and
the weights are those of an undisturbed run. This process holds the lease, and stops the child when it is lost.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from service.errors import ObjectNotFound, TrainingFailed
from service.jobs.usage import TenantUsage
from service.registry.register import file_sha256
from service.runs.spec import RunSpec
from service.store import run_keys, training_keys
from service.store.base import ObjectStore
from service.store.immutable import StoredObject, put_attempt, put_immutable
from service.store.keys import with_attempt
from service.trainings import control
from service.trainings.quota import TrainingUsage
from service.trainings.records import CheckpointRecord, TrainingRecords, kept, thinned
from service.trainings.work import TrainingBudget, TrainingStage
from workers.bulk.context import RunContext, RunReleased
from workers.runtime.interactive_mark import is_marked
from workers.trainings import folder as messages
from workers.trainings.folder import Begun, Failure, StageOrder, StageProgress, StageResult, read_message, write_message
from workers.trainings.log_lines import first_loss, read_lines, write_lines
from workers.trainings.probing import Prober
from workers.trainings.process import Child, running_child

logger = logging.getLogger(__name__)
_POLL_INTERVAL_S = 0.2
_PNG_END = b"IEND\xaeB`\x82"
_CONTROL_INTERVAL_S = 2.0
STOP_GRACE_S = 60.0
"""Time for the current iteration and a checkpoint when a stage is stopped."""
SHUTDOWN_GRACE_S = 20.0
"""The same when the worker itself is to end, which its supervisor waits for."""


class StageEnd(StrEnum):
    """How the child ended."""

    DONE = "done"
    PAUSED = "paused"
    SPENT = "budget spent"


@dataclass(frozen=True)
class Spent:
    """What a training has used so far, over all stages and workers."""

    iterations: int = 0
    seconds: float = 0.0
    device_seconds: float = 0.0

    def over(self, budget: TrainingBudget) -> str | None:
        """The limit that is reached, in words; None if none is."""
        if budget.iterations is not None and self.iterations >= budget.iterations:
            return f"{budget.iterations} iterations"
        if budget.hours is not None and self.seconds >= budget.hours * 3600:
            return f"{budget.hours:g} hours"
        if budget.device_seconds is not None and self.device_seconds >= budget.device_seconds:
            return f"{budget.device_seconds:g} device-seconds"
        return None


@dataclass
class StageRun:
    """A stage in this worker's hands. ``before`` is what the stages before it have used."""

    context: RunContext
    number: int
    stage: TrainingStage
    budget: TrainingBudget
    before: Spent
    keep_every: int | None
    folder: Path
    processes: int = 1
    continues: str | None = None
    spent: Spent = field(default_factory=Spent)
    begun: Begun | None = None
    _resumed: CheckpointRecord | None = None
    _linked: tuple[int, int] | None = None
    _controlled_at: float = float("-inf")
    _finishing: bool = False
    _stored_samples: set[str] = field(default_factory=set)
    _prober: Prober = field(init=False)

    def __post_init__(self) -> None:
        self._prober = Prober(self.context.worker, self.spec, self.number, self.processes)

    @property
    def spec(self) -> RunSpec:
        return self.context.spec

    @property
    def records(self) -> TrainingRecords:
        return TrainingRecords(self.context.worker.store, self.spec.run)

    @property
    def out(self) -> Path:
        """The run's folder, as ``twinset train --out`` has it."""
        return self.folder / self.spec.run

    def prepare(self, order: StageOrder) -> None:
        """Fetches the last checkpoint and writes the order. ``until`` of the order is what the budget leaves."""
        self.out.mkdir()
        last = self._resumed = self.records.last(self.number) or self._of_former()
        self.spent = self.before
        if last is not None:
            self._fetch(last)
            write_lines(self.out / messages.LOG, last.series)
            self.spent = Spent(self.before.iterations + last.iteration, last.seconds, last.device_seconds)
            if last.run == self.spec.run:
                # what was fetched has a record
                self._linked = _identity(self.out / messages.CHECKPOINT)
        if self.budget.iterations is not None:
            left = max(1, self.budget.iterations - self.before.iterations)
            order = order.model_copy(update={"until": left})
        write_message(self.folder / messages.ORDER, order)

    def run(self) -> StageEnd:
        """Runs the child until it is done, the training is paused, or its budget is spent.

        Raises :class:`RunReleased` when this worker must stop, :class:`TrainingFailed` for what would fail again, and
        OSError or RuntimeError for what another attempt may do.
        """
        worker = self.context.worker
        with running_child(self.folder, worker.settings, self.processes) as child:
            while True:
                code = child.wait(_POLL_INTERVAL_S)
                try:
                    self.context.check()
                except RunReleased as released:
                    if not released.cancelled and not self.context.lease.lost:
                        child.stop(SHUTDOWN_GRACE_S)
                        self._store_checkpoint()
                    raise
                self._note_begun()
                self._give_way()
                self._report()
                self._store_checkpoint()
                self._store_samples()
                if code is not None:
                    return self._ended(child, code)
                if (end := self._must_stop()) is not None:
                    child.stop(STOP_GRACE_S)
                    self._report()
                    self._store_checkpoint()
                    if (self.folder / messages.RESULT).exists():
                        return StageEnd.DONE
                    return end

    def finish_at(self, iteration: int) -> None:
        """Orders the result of the run as it is, after ``iteration`` iterations: its budget is spent."""
        order = read_message(self.folder / messages.ORDER, StageOrder)
        assert order is not None
        for name in (messages.BEGUN, messages.PROGRESS):
            (self.folder / name).unlink(missing_ok=True)
        write_message(self.folder / messages.ORDER, order.model_copy(update={"until": iteration}))
        self._resumed, self.begun, self._finishing = self.records.last(self.number), None, True

    @property
    def result(self) -> StageResult:
        """The child's result. Raises RuntimeError if there is none."""
        found = read_message(self.folder / messages.RESULT, StageResult)
        if found is None:
            raise RuntimeError("the training process ended without a result")
        return found

    @property
    def series(self) -> tuple[dict[str, float], ...]:
        """The log of the stage so far, thinned."""
        return thinned(read_lines(self.out / messages.LOG))

    def _ended(self, child: Child, code: int) -> StageEnd:
        if code == 0 and (self.folder / messages.RESULT).exists():
            return StageEnd.DONE
        failure = read_message(self.folder / messages.FAILURE, Failure)
        if failure is None:
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            hint = "; it may have run out of memory: lower batch_size" if code == -9 else ""
            logger.error(
                "run=%s: the training process %s; its last output:\n%s", self.spec.run, how, child.last_words()
            )
            raise RuntimeError(f"the training process {how}{hint}")
        logger.error("run=%s: %s\n%s", self.spec.run, failure.reason, child.last_words())
        if failure.kind == "invalid":
            raise TrainingFailed(failure.reason)
        if failure.kind == "machine":
            raise OSError(failure.reason)
        raise RuntimeError(failure.reason)

    def _note_begun(self) -> None:
        if self.begun is None:
            self.begun = read_message(self.folder / messages.BEGUN, Begun)
            if self.begun is not None:
                self.records.mark_validated()

    def _give_way(self) -> None:
        """Tells the child whether interactive twins are made on this machine."""
        path = self.folder / messages.YIELD
        if is_marked(self.context.worker.redis):
            path.touch()
        else:
            path.unlink(missing_ok=True)

    def _report(self) -> None:
        """Publishes the progress, and counts what was used since the child began."""
        progress = read_message(self.folder / messages.PROGRESS, StageProgress)
        if progress is None or self.begun is None:
            note = f"{self.stage.system}: reading the data" if self.begun is None else f"{self.stage.system}: starting"
            note = f"{self.stage.system}: writing the result" if self._finishing else note
            self.context.report_progress(self.spent.iterations, None, note=note)
            return
        self.spent = self._used(progress.iteration, progress.seconds)
        self._prober.note(self.begun, progress, is_yielding=(self.folder / messages.YIELD).exists())
        note = f"{self.stage.system}: iteration {progress.iteration} of {self.begun.iterations}"
        if progress.iteration >= self.begun.iterations:
            note = f"{self.stage.system}: writing the result"
        self.context.report_progress(self.spent.iterations, self.before.iterations + self.begun.iterations, note=note)

    def _used(self, iteration: int, seconds: float) -> Spent:
        resumed = self._resumed
        earlier, earlier_device = (
            (self.before.seconds, self.before.device_seconds)
            if resumed is None
            else (resumed.seconds, resumed.device_seconds)
        )
        return Spent(self.before.iterations + iteration, earlier + seconds, earlier_device + seconds * self.processes)

    def _must_stop(self) -> StageEnd | None:
        if not self._finishing and self.spent.over(self.budget) is not None and not self._at_end():
            return StageEnd.SPENT
        now = time.monotonic()
        if now - self._controlled_at >= _CONTROL_INTERVAL_S:
            self._controlled_at = now
            if control.is_paused(self.context.worker.store, self.spec.run):
                return StageEnd.PAUSED
        return None

    def _at_end(self) -> bool:
        """Whether the child has done its iterations and is writing the result."""
        progress = read_message(self.folder / messages.PROGRESS, StageProgress)
        if self.begun is None:
            return False
        order = read_message(self.folder / messages.ORDER, StageOrder)
        end = min(self.begun.iterations, (order and order.until) or self.begun.iterations)
        return progress is not None and progress.iteration >= end

    def _store_checkpoint(self) -> None:
        """Stores the child's newest checkpoint, if it has written one since: the file first, then its record."""
        path = self.out / messages.CHECKPOINT
        link = self.folder / "upload.safetensors"
        link.unlink(missing_ok=True)
        try:
            if _identity(path) == self._linked:
                return
            # the child replaces its file, which leaves a linked one as it was
            os.link(path, link)
            self._linked = _identity(link)
            iteration = messages.checkpoint_iteration(link)
        except FileNotFoundError:
            return  # none yet, or the child is replacing it at this moment
        try:
            self._write_record(link, iteration)
        finally:
            link.unlink(missing_ok=True)

    def _write_record(self, file: Path, iteration: int) -> None:
        worker, run, records = self.context.worker, self.spec.run, self.records
        if records.checkpoint(self.number, iteration) is not None:
            return
        key = training_keys.training_checkpoint_file(run, self.number, iteration)
        stored = stored_file(key, file)
        put_immutable(worker.store, stored, file)
        lines = [line for line in read_lines(self.out / messages.LOG) if line["iteration"] <= iteration]
        self._report()
        spent = self.spent
        record = CheckpointRecord(
            run=run,
            stage=self.number,
            iteration=iteration,
            iterations=self.begun.iterations if self.begun else iteration,
            file=stored,
            loss=first_loss(lines),
            series=thinned(lines),
            seconds=round(spent.seconds, 3),
            device_seconds=round(spent.device_seconds, 3),
            at=datetime.now(UTC),
            worker=worker.name,
        )
        if not worker.leases.renew(self.context.lease.lease):
            self.context.lease.lost = True
            raise RunReleased(cancelled=False)
        records.write_checkpoint(record)
        self.context.forget_attempts()
        self._remove_files()
        TenantUsage(worker.store).replace_bytes(self.spec.tenant, run, stored_bytes(worker.store, run))
        TrainingUsage(worker.store).record(self.spec.tenant, run, record.device_seconds - self._former_device_seconds)

    def _store_samples(self) -> None:
        """Stores the pictures of samples that the child has written since."""
        for picture in sorted((self.out / "samples").glob("*.png")):
            if picture.name in self._stored_samples or not (data := picture.read_bytes()).endswith(_PNG_END):
                continue  # stored, or being written at this moment
            key = training_keys.training_samples(self.spec.run, self.number, int(picture.stem))
            put_attempt(self.context.worker.store, key, data)
            self._stored_samples.add(picture.name)

    def _remove_files(self) -> None:
        """Removes the files of checkpoints that are not kept."""
        records = [record for record in self.records.checkpoints() if record.stage == self.number]
        stay = kept(records, self.keep_every)
        for record in records:
            if (record.stage, record.iteration) not in stay:
                self.context.worker.store.delete(record.file.key)

    def _of_former(self) -> CheckpointRecord | None:
        """The last checkpoint of this stage in the training that this one continues."""
        if self.continues is None:
            return None
        return TrainingRecords(self.context.worker.store, self.continues).last(self.number)

    @cached_property
    def _former_device_seconds(self) -> float:
        """What the training that this one continues had used, which counts as its own."""
        if self.continues is None:
            return 0.0
        return TrainingRecords(self.context.worker.store, self.continues).device_seconds()

    def _fetch(self, record: CheckpointRecord) -> None:
        """Fetches the file of a checkpoint into the run's folder."""
        path, again = self.out / messages.CHECKPOINT, "start the training again"
        try:
            with path.open("wb") as file:
                for piece in self.context.worker.store.stream(record.file.key, chunk_bytes=1 << 20):
                    file.write(piece)
                    self.context.check()
        except ObjectNotFound:
            raise TrainingFailed(f"checkpoint {record.file.key} is gone from the store; {again}") from None
        if file_sha256(path) != record.file.sha256:
            raise TrainingFailed(f"checkpoint {record.file.key} in the store is damaged; restore it, or {again}")


def stored_file(key: str, path: Path) -> StoredObject:
    """A file as the object that it becomes, under ``key`` with its attempt."""
    sha256 = file_sha256(path)
    return StoredObject(key=with_attempt(key, sha256), sha256=sha256, bytes=path.stat().st_size)


def stored_bytes(store: ObjectStore, run: str) -> int:
    """The bytes of all objects of a run."""
    return sum(info.size for info in store.list(run_keys.run_prefix(run)))


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_ino, found.st_mtime_ns
