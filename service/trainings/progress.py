"""A training's progress: a run's, with the state and the checkpoint it has come to."""

from __future__ import annotations

from dataclasses import dataclass

from service.broker.live_state import LiveState
from service.kit.states import JobState, TrainingState
from service.runs.progress import RunProgress, run_progress
from service.runs.repository import RunRepository
from service.runs.spec import RunSpec
from service.trainings import control
from service.trainings.records import TrainingRecords


@dataclass(frozen=True)
class TrainingProgress:
    """A run's progress, the training's state, and (stage, iteration) of the newest checkpoint."""

    run: RunProgress
    phase: TrainingState
    position: tuple[int, int] | None

    @property
    def state(self) -> JobState:
        """The run's state, for what all runs share."""
        return self.run.state


def training_progress(runs: RunRepository, live_state: LiveState, spec: RunSpec) -> TrainingProgress:
    """The training's progress now."""
    progress = run_progress(runs, live_state, spec)
    records = TrainingRecords(runs.store, spec.run)
    positions = records.positions()
    phase = TrainingState(progress.state.value)
    if not progress.state.ended and progress.state is not JobState.CANCELLING:
        if control.is_paused(runs.store, spec.run):
            phase = TrainingState.PAUSED
        elif progress.state is JobState.RUNNING and not positions and not records.is_validated():
            phase = TrainingState.VALIDATING
    return TrainingProgress(progress, phase, positions[-1] if positions else None)
