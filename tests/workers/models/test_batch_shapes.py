"""Batch shapes: measured once for a machine type and stored, set in the settings, or floating."""

from __future__ import annotations

import pytest
import torch

from model_store.interface import System
from service.jobs.manifest import manifest_entry
from service.store import keys
from service.store.folder import FolderStore
from tests.workers.conftest import Hire
from tests.workers.fakes import Post, TinySystem
from tests.workers.generation.test_chunk import accept, work
from workers.engine.shape import KNEE, MAX_STEP_S, choose_rows, forward_seconds, measure_rows
from workers.models.batch_shapes import shape_for
from workers.models.loaded_model import machine_type


def test_the_fewest_rows_are_chosen_that_cost_little_more_than_the_best() -> None:
    assert choose_rows({2: 26.0, 4: 12.0, 8: 12.0, 16: 13.0}) == 4
    assert choose_rows({2: 10.0 * KNEE, 4: 10.0}) == 2
    assert choose_rows({2: 10.0 * KNEE + 0.01, 4: 10.0}) == 4
    assert choose_rows({4: 1.0}) == 4
    with pytest.raises(ValueError, match="no batch"):
        choose_rows({})


def test_measuring_stops_when_more_rows_gain_nothing_take_too_long_or_exceed_the_memory() -> None:
    system = TinySystem()

    def measured(seconds: dict[int, float]) -> list[int]:
        def take(_: System, rows: int) -> float:
            if rows not in seconds:
                raise torch.OutOfMemoryError("no memory")
            return seconds[rows]

        found = measure_rows(system, take)
        assert all(found[rows] == seconds[rows] / rows for rows in found)
        return list(found)

    assert measured({2: 0.2, 4: 0.3, 8: 0.4, 16: 0.5, 32: 0.6}) == [2, 4, 8, 16, 32]
    assert measured({2: 0.2, 4: 0.3, 8: 0.7, 16: 1.5, 32: 3.0}) == [2, 4, 8, 16]
    assert measured({2: 0.2, 4: MAX_STEP_S + 0.1, 8: 9.0}) == [2, 4]
    assert measured({2: 0.2, 4: 0.3}) == [2, 4]
    assert measured({}) == []


def test_a_forwards_time_is_that_of_its_rows() -> None:
    system = TinySystem()
    assert forward_seconds(system, 4) > 0.0
    assert set(system.forwards) == {4}


def test_a_choice_is_stored_for_all_workers_of_the_machine_type(store: FolderStore) -> None:
    system = TinySystem()
    machine = machine_type(system, 1)
    first = shape_for(store, "tiny@1.0.0", system, machine, lambda _: {2: 2.0, 4: 1.0})
    assert (first.rows, first.machine, first.model) == (4, machine, "tiny@1.0.0")
    # a later measurement with another result changes nothing
    assert shape_for(store, "tiny@1.0.0", system, machine, lambda _: {2: 1.0, 4: 1.0}) == first
    assert shape_for(store, "tiny@1.0.0", system, machine | {"cpu_threads": "2"}, lambda _: {2: 1.0, 4: 1.0}).rows == 2
    [one, two] = [info.key for info in store.list("shapes/tiny/1.0.0/")]
    assert one != two


def test_if_two_workers_measure_at_once_the_first_to_write_decides(store: FolderStore) -> None:
    system = TinySystem()
    machine = machine_type(system, 1)

    def slow(_: System) -> dict[int, float]:
        shape_for(store, "tiny@1.0.0", system, machine, lambda _: {2: 1.0})
        return {8: 1.0}

    assert shape_for(store, "tiny@1.0.0", system, machine, slow).rows == 2


def test_a_damaged_choice_is_measured_again(store: FolderStore) -> None:
    system = TinySystem()
    machine = machine_type(system, 1)
    shape_for(store, "tiny@1.0.0", system, machine, lambda _: {2: 1.0})
    [info] = store.list("shapes/")
    store.put(info.key, b"{")
    assert shape_for(store, "tiny@1.0.0", system, machine, lambda _: {4: 1.0}).rows == 4
    assert shape_for(store, "tiny@1.0.0", system, machine, lambda _: {8: 1.0}).rows == 4


def test_a_worker_measures_if_no_shape_is_set_and_later_workers_use_its_choice(
    hire: Hire, post: Post, store: FolderStore
) -> None:
    rows = hire(batch_shape=0).models.get("tiny@1.0.0").engine_model.rows
    [info] = store.list("shapes/tiny/1.0.0/")
    chosen = store.get(info.key)
    again = hire(batch_shape=0)
    assert again.models.get("tiny@1.0.0").engine_model.rows == rows
    assert store.get(info.key) == chosen
    spec = accept(again, post, count=3)
    work(again, post)
    record = again.repository.chunks.read(spec.job, 0)
    assert record is not None
    assert record.batch_shape[0] == rows
    assert record.shapes == "fixed"


def test_a_shape_of_one_row_is_refused_with_the_reason(hire: Hire) -> None:
    with pytest.raises(Exception, match=r"batch_shape is 1; it must be 0 \(choose\) or at least 2"):
        hire(batch_shape=1).models.get("tiny@1.0.0")


def test_floating_shapes_run_only_the_used_rows_and_the_record_says_so(
    hire: Hire, post: Post, store: FolderStore
) -> None:
    systems: list[TinySystem] = []

    def load(_: object) -> System:
        systems.append(TinySystem())
        return systems[-1]

    worker = hire(batch_shape=16, shapes="floating", load=load)
    spec = accept(worker, post, count=3, chunk_size=3, guidance_scale=1.0)
    work(worker, post)
    # three samples of one row each need four rows, not sixteen
    assert max(systems[0].forwards) <= 4
    record = worker.repository.chunks.read(spec.job, 0)
    assert record is not None
    assert record.shapes == "floating"
    assert manifest_entry(spec, record, record.items[0])["shapes"] == "floating"
    many = accept(worker, post, count=20, chunk_size=20)
    work(worker, post)
    assert max(systems[0].forwards) == 16
    assert store.get(keys.job_summary(many.job))
