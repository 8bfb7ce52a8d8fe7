"""A device with too little memory, or a lost one, under a whole worker: the records stay true."""

from __future__ import annotations

import json
import os
import signal

import pytest
import torch
from torch import Tensor

from model_store.card import load_card
from model_store.interface import Condition
from service.kit.states import JobState
from service.store.folder import FolderStore
from tests.stored_twins import manifest_lines
from tests.workers.conftest import Hire
from tests.workers.fakes import Post, TinySystem
from tests.workers.generation.test_chunk import accept, files_of, work
from workers.generation.chunk import ChunkOutcome, generate_chunk


class ShortOfMemory(TinySystem):
    """A system with memory for eight rows until the third forward."""

    def forward(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        if len(x) > 4 and len(self.forwards) >= 20:
            raise torch.OutOfMemoryError("no memory for eight rows")
        return super().forward(x, t, condition)


def test_a_chunk_whose_shape_was_halved_midway_is_of_one_shape_and_records_it(
    hire: Hire, post: Post, store: FolderStore
) -> None:
    small = hire(batch_shape=4)
    expected = accept(small, post, count=12, chunk_size=12, steps=10, eta=1.0)
    work(small, post)
    worker = hire(load=lambda folder: ShortOfMemory(load_card(folder)), batch_shape=8)
    spec = accept(worker, post, count=12, chunk_size=12, steps=10, eta=1.0)
    work(worker, post)
    lines = [json.loads(line) for line in manifest_lines(store, spec.job)]
    assert [line["batch_shape"] for line in lines] == [[4, 6, 8, 8]] * 12
    assert files_of(store, spec) == files_of(store, expected)


def test_a_lost_device_ends_the_process_and_the_chunk_is_requeued(
    hire: Hire, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lost(TinySystem):
        def forward(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
            raise RuntimeError("CUDA error: device-side assert triggered")

    asked: list[int] = []
    monkeypatch.setattr(os, "kill", lambda _, number: asked.append(number))
    worker = hire(load=lambda folder: Lost(load_card(folder)))
    spec = accept(worker, post, count=2, chunk_size=2)
    sent = len(post.sent)
    assert generate_chunk(worker, spec.job, 0) is ChunkOutcome.REQUEUED
    assert asked == [signal.SIGTERM]
    assert worker.engine.device_lost
    assert post.sent[sent:] == [(spec.job, 0)], "another worker gets it"
    assert worker.repository.chunks.read(spec.job, 0) is None

    other = hire()
    work(other, post)
    summary = other.repository.read_summary(spec.job)
    assert summary is not None
    assert summary.state is JobState.SUCCEEDED
