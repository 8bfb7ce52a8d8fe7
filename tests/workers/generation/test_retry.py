"""A retry on a real engine makes the twins that the first job would have made, to the byte."""

from __future__ import annotations

from typing import Any

import pytest

from model_store.card import load_card
from model_store.masks.decode import Twin
from service.jobs.quotas import Quotas
from service.jobs.retry import Retries
from service.jobs.spec import JobSpec
from service.jobs.submit import JobSubmitter
from service.kit.states import JobState
from service.masks.reader import MaskReader
from service.masks.uploads import Uploads
from service.registry.catalogue import Catalogue
from service.store.folder import FolderStore
from tests.workers.conftest import Hire
from tests.workers.fakes import Post, TinySystem
from tests.workers.generation.test_chunk import accept, files_of, work
from workers.generation.worker import Worker
from workers.tools.verify import (
    VerifyVerdict,
    draw,
    verdict,
    verify,
)


def retries(worker: Worker, store: FolderStore, post: Post) -> Retries:
    uploads = Uploads(store)
    parts: Any = (Catalogue(store), post, uploads, MaskReader(worker.settings, uploads))
    return Retries(
        JobSubmitter(worker.settings, worker.repository, *parts, Quotas(worker.repository.usage, worker.live_state))
    )


@pytest.fixture
def whole(worker: Worker, post: Post) -> JobSpec:
    """A job that succeeded."""
    spec = accept(worker, post, count=7, chunk_size=2, eta=1.0)
    work(worker, post)
    return spec


@pytest.mark.parametrize("layout", ["objects", "shards"])
def test_a_quarantined_chunk_is_made_by_the_retry_to_the_byte(
    worker: Worker, post: Post, store: FolderStore, whole: JobSpec, layout: str
) -> None:
    spec = accept(worker, post, count=7, chunk_size=2, eta=1.0, layout=layout)
    for _ in range(worker.settings.max_chunk_attempts):
        worker.dispatcher.begin_attempt(spec.job, 1)
    work(worker, post)
    summary = worker.repository.read_summary(spec.job)
    assert summary is not None
    assert (summary.state, summary.done, summary.failed) == (JobState.PARTIAL, 5, 2)

    retry, made = retries(worker, store, post).retry(spec)
    assert made
    assert (retry.only, retry.chunks, retry.layout) == (((2, 3),), 1, layout)
    work(worker, post)
    summary = worker.repository.read_summary(retry.job)
    assert summary is not None
    assert (summary.state, summary.done, summary.total) == (JobState.SUCCEEDED, 2, 2)
    assert {**files_of(store, spec), **files_of(store, retry)} == files_of(store, whole)
    assert not files_of(store, spec).keys() & files_of(store, retry).keys()
    drawn = draw(worker.repository, retry, 5, 1)
    assert [pick.item.index for pick in drawn.picks] == [2, 3]
    load = lambda folder: TinySystem(load_card(folder))  # noqa: E731
    assert verdict(list(verify(drawn, store, worker.settings, load=load))) is VerifyVerdict.SAME


def test_samples_that_failed_here_and_there_are_made_by_the_retry_to_the_byte(
    hire: Hire, post: Post, store: FolderStore, whole: JobSpec
) -> None:
    class BreaksNowAndThen(TinySystem):
        calls = 0

        def decode(self, x0: Any, size_px: int) -> list[Twin]:
            BreaksNowAndThen.calls += 1
            if BreaksNowAndThen.calls in (1, 4, 7):
                raise ValueError("no twin can be seen in this")
            return super().decode(x0, size_px)

    worker = hire(load=lambda folder: BreaksNowAndThen(load_card(folder)))
    spec = accept(worker, post, count=7, chunk_size=2, eta=1.0)
    work(worker, post)
    retry, _ = retries(worker, store, post).retry(spec)
    assert retry.count == 3
    work(worker, post)
    assert {**files_of(store, spec), **files_of(store, retry)} == files_of(store, whole)
