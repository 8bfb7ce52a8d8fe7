"""Tests of the verification of twins: intact jobs, damaged stores, wrong records and other machines."""

from __future__ import annotations

import os
import random
from typing import Any

import numpy as np
import pytest
import torch
from redis import Redis

from model_store.card import ModelCard, load_card
from model_store.masks.decode import Twin
from service.errors import JobStateConflict, StoreUnavailable, WeightsError
from service.jobs.spec import ChunkRecord, JobSpec
from service.kit.png import encode_image, encode_mask
from service.settings import Settings
from service.store import keys
from service.store.folder import FolderStore
from tests.model_store.latent.tiny import tiny_system
from tests.stored_twins import image_key, input_key, mask_key, shard_key
from tests.workers.conftest import Hire, load_tiny
from tests.workers.fakes import Post, TinySystem
from tests.workers.generation import test_mask_jobs as mask_jobs
from tests.workers.generation.test_chunk import accept, work
from workers.generation.reproduce import Conditions, differences
from workers.generation.worker import Worker
from workers.tools import verify as verifying
from workers.tools.verify import (
    Drawn,
    Stored,
    TwinFinding,
    VerifyVerdict,
    distance,
    draw,
    verdict,
    verify,
)

card = mask_jobs.card


def contents(store: FolderStore) -> dict[str, bytes]:
    return {info.key: store.get(info.key) for info in store.list("")}


def made(worker: Worker, post: Post, **changes: Any) -> JobSpec:
    spec = accept(worker, post, **changes)
    work(worker, post)
    return spec


def findings_of(
    worker: Worker, settings: Settings, spec: JobSpec, count: int = 100, load: Any = load_tiny
) -> list[TwinFinding]:
    return list(verify(draw(worker.repository, spec, count, 3), worker.repository.store, settings, load=load))


def rewrite(worker: Worker, spec: JobSpec, chunk: int = 0, item: dict[str, Any] | None = None, **changes: Any) -> None:
    """Changes a record in the store; ``item`` changes its first item, ``build`` updates the recorded build."""
    record = worker.repository.chunks.read(spec.job, chunk)
    assert record is not None
    if item is not None:
        changes["items"] = (record.items[0].model_copy(update=item), *record.items[1:])
    if "build" in changes:
        changes["build"] = record.build | changes["build"]
    record = ChunkRecord.model_validate(record.model_dump() | changes)
    worker.repository.store.put(keys.job_chunk(spec.job, chunk), record.model_dump_json().encode())


@pytest.mark.parametrize("layout", ["objects", "shards"])
def test_an_intact_job_is_reproduced_and_the_store_is_unchanged(
    worker: Worker, post: Post, settings: Settings, store: FolderStore, layout: str
) -> None:
    spec = made(worker, post, count=7, chunk_size=3, eta=0.5, layout=layout)
    before, steps = contents(store), []
    # other settings than those under which the job was made
    changed = settings.model_copy(update={"batch_shape": 16, "cpu_threads": 2})
    drawn = draw(worker.repository, spec, 4, 3)
    findings = list(verify(drawn, store, changed, load=load_tiny, on_step=lambda: steps.append(1)))
    assert [finding.index for finding in findings] == [pick.item.index for pick in drawn.picks]
    assert len({finding.index for finding in findings}) == 4
    assert len(steps) == 4 * spec.steps
    for finding in findings:
        assert [(file.kind, file.stored, file.remade) for file in finding.files] == [
            ("image", Stored.AS_RECORDED, True),
            ("mask", Stored.AS_RECORDED, True),
        ]
        assert not finding.differences
        assert finding.failure is None
    assert verdict(findings) is VerifyVerdict.SAME
    assert contents(store) == before


def test_batch_shape_and_threads_are_those_of_the_record(
    worker: Worker, hire: Hire, post: Post, settings: Settings
) -> None:
    spec = made(hire(batch_shape=4), post, count=2)
    [one, other] = findings_of(worker, settings, spec)
    assert one.differences == other.differences == ()
    assert verdict([one, other]) is VerifyVerdict.SAME


def test_damaged_and_missing_objects_are_distinguished_from_differing_twins(
    worker: Worker, post: Post, settings: Settings, store: FolderStore
) -> None:
    spec = made(worker, post, count=3, chunk_size=3)
    store.put(image_key(store, spec.job, 0), store.get(image_key(store, spec.job, 1)))
    store.delete(mask_key(store, spec.job, 2))
    rewrite(worker, spec, build={"torch": "1.0"})
    findings = findings_of(worker, settings, spec)
    assert [[(file.stored, file.remade) for file in finding.files] for finding in findings] == [
        [(Stored.DAMAGED, True), (Stored.AS_RECORDED, True)],
        [(Stored.AS_RECORDED, True), (Stored.AS_RECORDED, True)],
        [(Stored.AS_RECORDED, True), (Stored.MISSING, True)],
    ]
    assert verdict(findings) is VerifyVerdict.DIFFERENT, "a damaged object is one whatever machine looks"
    assert verdict(findings[1:2]) is VerifyVerdict.SAME


def test_damage_in_a_shard_is_reported_per_file(
    worker: Worker, post: Post, settings: Settings, store: FolderStore
) -> None:
    spec = made(worker, post, count=4, chunk_size=2, layout="shards")
    record = worker.repository.chunks.read(spec.job, 0)
    assert record is not None
    assert record.items[1].mask_offset is not None
    key, at = shard_key(store, spec.job, 0), record.items[1].mask_offset
    data = bytearray(store.get(key))
    data[at + 50] ^= 1
    store.put(key, bytes(data))
    store.delete(shard_key(store, spec.job, 1))
    findings = findings_of(worker, settings, spec)
    assert [[file.stored for file in finding.files] for finding in findings] == [
        [Stored.AS_RECORDED, Stored.AS_RECORDED],
        [Stored.AS_RECORDED, Stored.DAMAGED],
        [Stored.MISSING, Stored.MISSING],
        [Stored.MISSING, Stored.MISSING],
    ]
    assert all(file.remade for finding in findings for file in finding.files)
    assert findings[1].files[1].place == f"{key} (bytes {at} to {at + (record.items[1].mask_bytes or 0)})"
    assert verdict(findings) is VerifyVerdict.DIFFERENT


def test_a_wrong_hash_in_the_record_is_detected(worker: Worker, post: Post, settings: Settings) -> None:
    spec = made(worker, post, count=2)
    rewrite(worker, spec, item={"image_sha256": "0" * 64})
    findings = findings_of(worker, settings, spec)
    image, mask = findings[0].files
    assert (image.stored, image.remade, image.like_stored) == (Stored.DAMAGED, False, True)
    assert image.distance is not None
    assert image.distance.largest == 0
    assert mask.remade is True
    assert verdict(findings) is VerifyVerdict.DIFFERENT


class Brighter(TinySystem):
    """A system with other arithmetic: images 3 brighter (up to 255), the first mask row another class."""

    def decode(self, x0: Any, size_px: int) -> list[Twin]:
        [twin] = super().decode(x0, size_px)
        assert twin.mask is not None
        mask = twin.mask.copy()
        mask[0] = (mask[0] + 1) % 3
        return [Twin(np.minimum(twin.image, 252) + 3, mask, twin.confidence)]


def test_differing_twins_are_measured_and_prove_damage_only_on_an_equal_machine(
    worker: Worker, post: Post, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = made(worker, post, count=1)

    def brighter(folder: Any) -> TinySystem:
        return Brighter(load_card(folder))

    findings = findings_of(worker, settings, spec, load=brighter)
    image, mask = findings[0].files
    assert (image.stored, image.remade, image.like_stored) == (Stored.AS_RECORDED, False, False)
    assert image.distance is not None
    assert image.distance.largest == 3
    assert 0.0 < image.distance.mean <= 3.0
    assert mask.distance is not None
    assert mask.distance.share == pytest.approx(1 / 8)
    assert verdict(findings) is VerifyVerdict.DIFFERENT

    rewrite(worker, spec, device="cpu (Another)", build={"torch": "1.0", "cpu_threads": "2"})
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0}, raising=False)
    findings = findings_of(worker, settings, spec, load=brighter)
    assert {each.what: each.recorded for each in findings[0].differences} == {
        "device": "cpu (Another)",
        "torch": "1.0",
        "cpu_threads": "2",
    }
    assert verdict(findings) is VerifyVerdict.PROVES_NOTHING


def test_twins_of_a_gpu_are_made_on_the_cpu_without_one(
    worker: Worker, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = made(worker, post, count=1)
    rewrite(worker, spec, device="cuda:1 (A GPU)", batch_shape=(256, 6, 8, 8), build={"forward": "cuda graph"})
    [pick] = draw(worker.repository, spec, 1, 0).picks
    for gpus, device, rows in ((0, "cpu", 4), (1, "cuda:0", 256), (2, "cuda:1", 256)):
        monkeypatch.setattr(torch.cuda, "is_available", lambda gpus=gpus: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda gpus=gpus: gpus)
        conditions = Conditions.of(pick.record)
        assert (conditions.device, conditions.rows) == (device, rows)
        changed = conditions.settings(worker.settings)
        assert (changed.cuda_graphs, changed.compile, changed.shapes) == (True, False, "fixed")
    here = differences(pick.record, worker.models.get(spec.model))
    assert {each.what: each.recorded for each in here} == {
        "device": "cuda (A GPU)",
        "batch shape": "256x6x8x8",
        "forward": "cuda graph",
    }


def test_floating_shapes_are_not_reproducible(worker: Worker, post: Post, settings: Settings) -> None:
    spec = made(worker, post, count=1)
    rewrite(worker, spec, shapes="floating")
    findings = findings_of(worker, settings, spec, load=lambda folder: Brighter(load_card(folder)))
    assert [each.what for each in findings[0].differences] == ["shapes"]
    assert verdict(findings) is VerifyVerdict.PROVES_NOTHING


def test_records_without_a_forward_mode_are_eager(worker: Worker, post: Post, settings: Settings) -> None:
    spec = made(worker, post, count=1)
    record = worker.repository.chunks.read(spec.job, 0)
    assert record is not None
    old = record.model_copy(
        update={"build": {name: value for name, value in record.build.items() if name != "forward"}}
    )
    worker.repository.store.put(keys.job_chunk(spec.job, 0), old.model_dump_json().encode())
    [finding] = findings_of(worker, settings, spec)
    assert finding.differences == ()
    assert not finding.differs


def test_failed_samples_are_left_out_and_counted(hire: Hire, post: Post, settings: Settings) -> None:
    class BreaksAtTimes(TinySystem):
        calls = 0

        def decode(self, x0: Any, size_px: int) -> list[Twin]:
            BreaksAtTimes.calls += 1
            if BreaksAtTimes.calls in (2, 5):
                raise ValueError("no twin can be seen in this")
            return super().decode(x0, size_px)

    worker = hire(load=lambda folder: BreaksAtTimes(load_card(folder)))
    spec = made(worker, post, count=6, chunk_size=4)
    drawn = draw(worker.repository, spec, 10, 3)
    assert (len(drawn.picks), drawn.failed) == (4, 2)
    assert all(pick.item.error is None for pick in drawn.picks)
    assert verdict(findings_of(worker, settings, spec)) is VerifyVerdict.SAME


def test_a_twin_that_cannot_be_made_again_differs_with_a_reason(worker: Worker, post: Post, settings: Settings) -> None:
    class Breaks(TinySystem):
        def decode(self, x0: Any, size_px: int) -> list[Twin]:
            raise ValueError("no twin can be seen in this")

    spec = made(worker, post, count=2)
    findings = findings_of(worker, settings, spec, load=lambda folder: Breaks(load_card(folder)))
    assert [finding.failure for finding in findings] == ["ValueError: no twin can be seen in this"] * 2
    assert [file.remade for file in findings[0].files] == [None, None]
    assert verdict(findings) is VerifyVerdict.DIFFERENT


def test_twins_of_given_masks_are_reproduced_and_damaged_masks_reported(
    hire: Hire, post: Post, settings: Settings, store: FolderStore, card: ModelCard, redis: Redis
) -> None:
    def load(folder: Any) -> Any:
        return tiny_system("pathdiff", files=mask_jobs.FILES)

    worker = hire(load=load)
    masks = mask_jobs.accept(worker, post, card, mask_jobs.MASKS, prompt="few nuclei", count=4, chunk_size=2)
    text = mask_jobs.accept(worker, post, card, prompt="many nuclei", count=1)
    work(worker, post)
    before = contents(store)
    findings = findings_of(worker, settings, masks, load=load)
    assert [[file.kind for file in finding.files] for finding in findings] == [["image", "mask"]] * 4
    assert verdict(findings) is VerifyVerdict.SAME
    [alone] = findings_of(worker, settings, text, load=load)
    assert [file.kind for file in alone.files] == ["image"]
    assert verdict([alone]) is VerifyVerdict.SAME
    assert contents(store) == before

    store.put(input_key(store, masks.job, 1), b"not what was given")
    store.delete(input_key(store, masks.job, 2))
    findings = findings_of(worker, settings, masks, load=load)
    assert [finding.damaged for finding in findings] == [False, True, True, False]
    assert "the job was accepted with" in (findings[1].failure or "")
    assert input_key(store, masks.job, 2) in (findings[2].failure or "")
    assert verdict(findings) is VerifyVerdict.DIFFERENT


def test_the_same_seed_draws_the_same_twins_and_all_are_equally_likely(worker: Worker, post: Post) -> None:
    spec = made(worker, post, count=11, chunk_size=4)

    def indices(count: int, seed: int) -> list[int]:
        return [pick.item.index for pick in draw(worker.repository, spec, count, seed).picks]

    assert indices(4, 1) == indices(4, 1) != indices(4, 2)
    assert indices(100, 1) == list(range(11)), "no more than there are"
    drawn = [index for seed in range(220) for index in indices(1, seed)]
    assert all(5 <= drawn.count(index) <= 45 for index in range(11)), "20 of each are to be expected"
    shuffled = list(verifying._shuffled(50, random.Random(0)))
    assert sorted(shuffled) == list(range(50)) != shuffled


def test_only_recorded_chunks_are_drawn_from(worker: Worker, post: Post) -> None:
    spec = made(worker, post, count=9, chunk_size=3)
    worker.repository.store.delete(keys.job_chunk(spec.job, 1))
    assert [pick.item.index for pick in draw(worker.repository, spec, 100, 0).picks] == [0, 1, 2, 6, 7, 8]


def test_a_job_without_twins_cannot_be_verified(worker: Worker, post: Post) -> None:
    waiting = accept(worker, post, count=3)
    post.waiting.clear()
    with pytest.raises(JobStateConflict, match="none of its chunks is recorded yet"):
        draw(worker.repository, waiting, 5, 0)
    broken = made(worker, post, count=2, prompt="nan", classes=None)
    with pytest.raises(JobStateConflict, match=r"all 2 recorded samples failed: .*not finite"):
        draw(worker.repository, broken, 5, 0)


def test_changed_weights_and_store_errors_are_raised(
    worker: Worker, post: Post, settings: Settings, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = made(worker, post, count=1)
    drawn = draw(worker.repository, spec, 1, 0)
    other = Drawn(spec.model_copy(update={"weights_sha256": "0" * 64}), drawn.picks, 0)
    with pytest.raises(WeightsError, match="accepted for 0000"):
        list(verify(other, store, settings, load=load_tiny))

    class Away(FolderStore):
        def get(self, key: str, **options: Any) -> bytes:
            if "/images/" in key:
                raise StoreUnavailable("the disk is gone")
            return super().get(key, **options)

    away = Away(store.root, link_secret=b"0123456789abcdef", public_url="http://127.0.0.1:8000")
    with pytest.raises(StoreUnavailable):
        list(verify(drawn, away, settings, load=load_tiny))


def test_distance_measures_values_and_pixels() -> None:
    one = np.zeros((4, 4, 3), np.uint8)
    other = one.copy()
    other[0, 0] = (255, 0, 9)
    far = distance(encode_image(one, {"a": 1}), encode_image(other, {}))
    assert far is not None
    assert (far.largest, far.mean, far.share) == (255, pytest.approx(264 / 48), 1 / 16)
    labels = np.zeros((4, 4), np.uint8)
    labels[1] = 1
    colours = [(0, 0, 0), (255, 255, 255)]
    far = distance(encode_mask(labels, colours, {}), encode_mask(np.zeros_like(labels), colours, {}))
    assert far is not None
    assert far.share == 0.25
    assert distance(encode_image(one, {}), b"no PNG") is None
    assert distance(encode_image(one, {}), encode_image(one[:2], {})) is None
