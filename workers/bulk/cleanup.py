"""Clean-up of an ended run: removes the objects that it does not keep. Its summary counts those it keeps.

A run that has ended is never continued, so half an export, or the archive of an unreadable dataset, is of no use. The
run stays among the open ones (:mod:`service.store.run_keys`) until its clean-up is done. If the worker dies or the
store fails in between, the sweeper does the clean-up.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import closing

from service.augmentations.rounds import Rounds
from service.datasets.stored import layout
from service.datasets.stored.dataset import StoredDataset
from service.errors import StoreError, StoreUnavailable, UnknownDataset
from service.exports.location import ExportLocation
from service.exports.run import clean_up
from service.kit.prefetch import prefetch
from service.kit.run_kinds import RunKind, kind_of
from service.kit.states import JobState
from service.runs.repository import RunRepository
from service.runs.spec import RunSummary
from service.store import run_keys
from service.store.base import ObjectStore
from service.store.keys import ATTEMPT
from service.trainings.records import TrainingRecords

_HAS_ATTEMPT = re.compile(rf"\.{ATTEMPT}\.")


def clean_up_run(runs: RunRepository, summary: RunSummary) -> None:
    """Removes what the run does not keep, then its entry among the open runs. May be repeated.

    Raises the store's errors.
    """
    store, run = runs.store, summary.run
    kind, whole = kind_of(run), summary.state is JobState.SUCCEEDED
    if kind is RunKind.EXPORT and whole:
        clean_up(ExportLocation(store, run_keys.run_prefix(run)))
    elif kind is RunKind.DATASET and whole:
        store.delete(layout.archive(run))
        counted = _counted_of_dataset(store, run)
        if counted is not None:
            _delete(runs, _objects_made(runs, run, counted))
    elif kind is RunKind.AUGMENTATION:
        # a set's twins belong to its jobs, and those of judged rounds count in any case
        counted = Rounds(store, run).counted_keys()
        rounds = (info.key for info in store.list(f"{run_keys.run_prefix(run)}rounds/"))
        _delete(runs, (key for key in rounds if _HAS_ATTEMPT.search(key) and key not in counted))
    elif kind is RunKind.TRAINING:
        # checkpoints stay, so that one may be tried, or gone on from; a file that no record names goes
        counted = TrainingRecords(store, run).counted_keys()
        made = (info.key for info in store.list(run_keys.run_prefix(run)))
        _delete(runs, (key for key in made if _HAS_ATTEMPT.search(key) and key not in counted))
    else:
        # a failed dataset keeps the report, which says why
        kept = {layout.report(run)} if kind is RunKind.DATASET and summary.state is JobState.FAILED else set()
        _delete(runs, _objects_made(runs, run, kept))
    store.delete(run_keys.open_run(run))


def _counted_of_dataset(store: ObjectStore, run: str) -> set[str] | None:
    """The keys that a dataset's description counts; None if it names none, or cannot be read."""
    try:
        about = StoredDataset.open(store, run).about
    except StoreUnavailable:
        raise
    except (UnknownDataset, StoreError):
        return None
    return about.counted_keys() | {layout.about(run)} if about.objects else None


def _objects_made(runs: RunRepository, run: str, kept: set[str]) -> Iterator[str]:
    """The keys of all objects that a run has made, except ``kept`` and those that record the run itself."""
    kept = kept | {
        run_keys.run_spec(run),
        run_keys.run_started(run),
        run_keys.run_cancel(run),
        run_keys.run_summary(run),
        run_keys.run_swept(run),
    }
    attempts = run_keys.run_callbacks_prefix(run)
    found = (info.key for info in runs.store.list(run_keys.run_prefix(run)))
    return (key for key in found if key not in kept and not key.startswith(attempts))


def _delete(runs: RunRepository, found: Iterable[str]) -> None:
    with closing(prefetch(runs.store.delete, found)) as deleted:
        for _ in deleted:
            pass
