"""Settling: removing what an ended run has made and does not keep. What it keeps its summary counts.

A run that has ended is never gone on with, so half an export, or the archive of a dataset that could not be read, is of
no use to anybody. The run stays among the open ones (:mod:`service.store.run_keys`) from its summary until this is
done: whoever is killed in between, or met a store that failed, is followed by the sweeper.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing

from service.datasets.stored import layout
from service.exports.location import StorePlace
from service.exports.run import clean
from service.kit.prefetch import prefetch
from service.kit.run_kinds import RunKind, kind_of
from service.kit.states import JobState
from service.runs.repository import RunRepository
from service.runs.spec import RunSummary
from service.store import run_keys


def settle(runs: RunRepository, summary: RunSummary) -> None:
    """Removes what the run does not keep and strikes it off the open ones. May be repeated; raises what the store
    raises."""
    store, run = runs.store, summary.run
    kind, whole = kind_of(run), summary.state is JobState.SUCCEEDED
    if kind is RunKind.EXPORT and whole:
        clean(StorePlace(store, run_keys.run_prefix(run)))
    elif kind is RunKind.DATASET and whole:
        store.delete(layout.archive(run))
    elif kind is not RunKind.AUGMENTATION:
        # of a dataset that could not be read the report says why; the twins of a set are its jobs', and count however
        # it ended
        kept = {layout.report(run)} if kind is RunKind.DATASET and summary.state is JobState.FAILED else set()
        _delete(runs, _made(runs, run, kept))
    store.delete(run_keys.open_run(run))


def _made(runs: RunRepository, run: str, kept: set[str]) -> Iterator[str]:
    """The keys of all that a run has made, but for ``kept``; what says of it that it was is not among them."""
    kept = kept | {
        run_keys.run_spec(run),
        run_keys.run_started(run),
        run_keys.run_cancel(run),
        run_keys.run_summary(run),
    }
    told = run_keys.run_callbacks_prefix(run)
    found = (info.key for info in runs.store.list(run_keys.run_prefix(run)))
    return (key for key in found if key not in kept and not key.startswith(told))


def _delete(runs: RunRepository, found: Iterable[str]) -> None:
    with closing(prefetch(runs.store.delete, found)) as deleted:
        for _ in deleted:
            pass
