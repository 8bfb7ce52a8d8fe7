"""Clean-up of an ended run: removes the objects that it does not keep. Its summary counts those it keeps.

A run that has ended is never continued, so half an export, or the archive of an unreadable dataset, is of no use. The
run stays among the open ones (:mod:`service.store.run_keys`) until its clean-up is done. If the worker dies or the
store fails in between, the sweeper does the clean-up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing

from service.datasets.stored import layout
from service.exports.location import ExportLocation
from service.exports.run import clean_up
from service.kit.prefetch import prefetch
from service.kit.run_kinds import RunKind, kind_of
from service.kit.states import JobState
from service.runs.repository import RunRepository
from service.runs.spec import RunSummary
from service.store import run_keys


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
    elif kind is not RunKind.AUGMENTATION:
        # a failed dataset keeps the report, which says why; a set's twins belong to its jobs, and count in any case
        kept = {layout.report(run)} if kind is RunKind.DATASET and summary.state is JobState.FAILED else set()
        _delete(runs, _objects_made(runs, run, kept))
    store.delete(run_keys.open_run(run))


def _objects_made(runs: RunRepository, run: str, kept: set[str]) -> Iterator[str]:
    """The keys of all objects that a run has made, except ``kept`` and those that record the run itself."""
    kept = kept | {
        run_keys.run_spec(run),
        run_keys.run_started(run),
        run_keys.run_cancel(run),
        run_keys.run_summary(run),
    }
    attempts = run_keys.run_callbacks_prefix(run)
    found = (info.key for info in runs.store.list(run_keys.run_prefix(run)))
    return (key for key in found if key not in kept and not key.startswith(attempts))


def _delete(runs: RunRepository, found: Iterable[str]) -> None:
    with closing(prefetch(runs.store.delete, found)) as deleted:
        for _ in deleted:
            pass
