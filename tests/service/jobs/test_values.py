"""Ids, seeds, states and specs: what they are, to the digit."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from service.jobs.parameters import GenerationParameters
from service.jobs.spec import ChunkRecord, JobSpec, SampleRecord, Summary
from service.kit.ids import (
    accepted_at,
    is_job_id,
    new_job_id,
    oldest_at,
)
from service.kit.seeds import SEED_MAX, new_job_seed, sample_seed
from service.kit.states import (
    ENDED,
    TRANSITIONS,
    JobState,
    current_state,
    final_state,
    may_follow,
    sequence_number,
)

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def spec(**changes: Any) -> JobSpec:
    values = {
        "job": "j7ybr17pesw6kn47yb0",
        "created_at": NOW,
        "model": "aerial@1.0.0",
        "weights_sha256": "0" * 64,
        "system": "cosimgen",
        "classes": ("water",),
        "count": 10,
        "seed": 1,
        "steps": 50,
        "guidance_scale": 2.0,
        "eta": 0.0,
        "size": 256,
        "sampler": {},
        "chunk_size": 4,
        "request": {},
    }
    return JobSpec(**{**values, **changes})


def test_ids_sort_newest_first() -> None:
    moments = [NOW + timedelta(milliseconds=step**3) for step in range(50)]
    ids = [new_job_id(moment) for moment in moments]
    assert sorted(ids, reverse=True) == ids
    assert all(is_job_id(job) for job in ids)


def test_the_time_in_an_id_is_its_complement_in_crockford_base_32() -> None:
    digits = "0123456789abcdefghjkmnpqrstvwxyz"
    value = 0
    for digit in new_job_id(NOW)[1:11]:
        value = value * 32 + digits.index(digit)
    assert 2**48 - 1 - value == int(NOW.timestamp() * 1000)


def test_an_id_tells_its_moment_and_a_moment_the_ids_before_it() -> None:
    later, earlier = NOW + timedelta(milliseconds=1), NOW - timedelta(milliseconds=1)
    assert accepted_at(new_job_id(NOW)) == NOW
    assert max(new_job_id(later), new_job_id(NOW)) < oldest_at(NOW) < new_job_id(earlier)


def test_ids_of_one_millisecond_differ() -> None:
    assert len({new_job_id(NOW) for _ in range(200)}) == 200


@pytest.mark.parametrize(
    "text",
    ["", "j", "x7ybr17pesw6kn47yb0", "j7ybr17pesw6kn47yb0\n", "j7ybr17pesw6kn47ybu", "J7YBR17PESW6KN47YB0", "../x"],
)
def test_a_text_of_another_form_is_not_an_id(text: str) -> None:
    assert not is_job_id(text)


def test_sample_seeds_are_the_first_53_bits_of_the_hash() -> None:
    digest = hashlib.sha256(b"twinset-seed-v1:42:7").hexdigest()
    assert sample_seed(42, 7) == int(digest, 16) >> (256 - 53)
    assert sample_seed(42, 7) == sample_seed(42, 7) <= SEED_MAX
    assert len({sample_seed(job, index) for job in range(40) for index in range(40)}) == 1600
    assert sample_seed(1, 23) != sample_seed(12, 3)


def test_drawn_seeds_survive_a_double() -> None:
    for _ in range(100):
        seed = new_job_seed()
        assert int(float(seed)) == seed


def test_chunks_cover_the_job_without_gap_or_overlap() -> None:
    for count in range(1, 30):
        for size in range(1, 9):
            job = spec(count=count, chunk_size=size)
            assert [i for c in range(job.chunks) for i in job.chunk_range(c)] == list(range(count))
    with pytest.raises(IndexError, match="chunks 0 to 2"):
        spec(count=10, chunk_size=4).chunk_range(3)


def test_chunks_of_a_retry_cover_its_runs_of_indices_and_nothing_else() -> None:
    for wanted in ([5], [0, 1, 2], [3, 4, 9], [1, 3, 5, 7], [0, 10, 11, 12, 40, 42, 43]):
        runs = [(wanted[0], wanted[0])]
        for index in wanted[1:]:
            runs[-1:] = [(runs[-1][0], index)] if index == runs[-1][1] + 1 else [runs[-1], (index, index)]
        for size in range(1, 6):
            job = spec(count=len(wanted), only=tuple(runs), chunk_size=size)
            assert [i for c in range(job.chunks) for i in job.chunk_range(c)] == wanted
            assert JobSpec.model_validate_json(job.model_dump_json()) == job
            for after in range(-1, 45):
                first = next((place for place, index in enumerate(wanted) if index > after), len(wanted))
                assert job.chunk_after(after) == first // size
    for size in range(1, 6):
        assert [spec(chunk_size=size).chunk_after(after) for after in range(-1, 9)] == [n // size for n in range(10)]


def test_runs_that_overlap_or_do_not_come_to_the_count_are_refused() -> None:
    for count, only in (
        (3, ((0, 1),)),
        (4, ((0, 1), (1, 2))),
        (2, ((4, 4), (2, 2))),
        (2, ((3, 2),)),
        (1, ((-1, -1),)),
        (1, ()),
    ):
        with pytest.raises(ValidationError):
            spec(count=count, only=only)


def test_a_spec_survives_json_and_refuses_invalid_values() -> None:
    job = spec(name="ü", request={"classes": ["water"], "count": 10})
    assert JobSpec.model_validate_json(job.model_dump_json()) == job
    masks = ({"upload": "a" * 64, "sha256": "b" * 64},)
    for wrong in (
        {"prompt": "both"},
        {"classes": None},
        {"mask": masks},
        {"classes": None, "mask": ()},
        {"seed": 2**53},
        {"job": "x"},
        {"created_at": NOW.replace(tzinfo=None)},
    ):
        with pytest.raises(ValidationError):
            spec(**wrong)


def test_a_spec_has_a_priority_and_without_one_it_is_normal() -> None:
    urgent = spec(priority="interactive")
    assert JobSpec.model_validate_json(urgent.model_dump_json()) == urgent != spec()
    assert spec().priority == "normal"
    with pytest.raises(ValidationError, match="interactive"):
        spec(priority="high")


def test_a_spec_has_a_prompt_masks_or_both() -> None:
    masks = tuple({"upload": digit * 64, "sha256": "f" * 64} for digit in "abc")
    by_masks = spec(classes=None, mask=masks)
    assert by_masks.inputs == ("mask",)
    assert [by_masks.mask_number(index) for index in range(5)] == [0, 1, 2, 0, 1]
    assert JobSpec.model_validate_json(by_masks.model_dump_json()) == by_masks
    both = spec(classes=None, prompt="p", mask=masks, guidance_target="joint")
    assert both.inputs == ("prompt", "mask")
    assert (spec().inputs, spec().mask_number(3), spec().guidance_target) == (("classes",), None, None)
    with pytest.raises(ValidationError, match="upload"):
        spec(classes=None, mask=({"upload": "../x", "sha256": "f" * 64},))


def test_a_spec_is_without_masks_unless_they_are_given() -> None:
    plain = spec()
    assert (plain.mask, plain.guidance_target, plain.mask_number(1), plain.inputs) == (None, None, None, ("classes",))
    assert plain.layout == "objects"


def test_a_spec_of_another_format_is_refused() -> None:
    with pytest.raises(ValidationError, match="format"):
        spec(format=1)


def test_the_parameters_of_a_spec_are_what_a_request_could_send_and_nothing_else() -> None:
    mask = {"upload": "a" * 64, "sha256": "f" * 64}
    parameters = spec(classes=None, mask=(mask,), mask_encoding="index", idempotency_key="k").parameters
    told = json.loads(parameters.model_dump_json())
    assert list(told) == [
        *("model", "prompt", "classes", "mask", "instances", "mask_encoding", "count", "seed"),
        *("steps", "guidance_scale", "guidance_target", "eta", "size", "fit", "canvas", "priority", "layout"),
    ]
    assert told["mask"] == [{"upload": "a" * 64}], "the hash of the drawn mask is for workers alone"
    assert GenerationParameters.model_validate(told) == GenerationParameters(**told)


def test_a_sample_is_made_or_failed() -> None:
    with pytest.raises(ValidationError, match="neither an error nor a whole image"):
        SampleRecord(index=0, seed=0, image_key="k")
    with pytest.raises(ValidationError, match="cannot have an image"):
        SampleRecord(index=0, seed=0, image_key="k", image_sha256="0" * 64, image_bytes=1, error="no")


OLD_RECORD = """\
{"format":1,"job":"j7y9qkmvrpmvkzd4h2a","chunk":0,"items":[{"index":0,"seed":5,
"image_key":"jobs/j7y9qkmvrpmvkzd4h2a/images/00000000.png",
"image_sha256":"3c0f7a3c0f7a3c0f7a3c0f7a3c0f7a3c0f7a3c0f7a3c0f7a3c0f7a3c0f7a3c0f","image_bytes":100,
"mask_key":"jobs/j7y9qkmvrpmvkzd4h2a/masks/00000000.png",
"mask_sha256":"0c0f7a3c0f7a3c0f7a3c0f7a3c0f7a3c0f7a3c0f7a3c0f7a3c0f7a3c0f7a3c0f","mask_bytes":10,
"classes":[{"name":"Water","index":1,"share":1.0}],"confident_share":0.9,"mean_confidence":0.8,"error":null},
{"index":1,"seed":6,"image_key":null,"image_sha256":null,"image_bytes":null,"mask_key":null,"mask_sha256":null,
"mask_bytes":null,"classes":[],"confident_share":null,"mean_confidence":null,"error":"lost"}],"worker":"w",
"epoch":1,"batch_shape":[8,6,64,64],"shapes":"fixed","dtype":"float32","device":"cpu","build":{"twinset":"0.9"},
"attempt":1,"started_at":"2026-01-31T12:00:00Z","finished_at":"2026-01-31T12:00:01Z"}""".replace("\n", "")


def test_a_record_from_before_shards_is_still_read() -> None:
    record = ChunkRecord.model_validate_json(OLD_RECORD)
    assert (record.shard, record.failed, record.bytes) == (None, 1, 110)
    assert {(item.image_offset, item.mask_offset) for item in record.items} == {(None, None)}


def test_the_files_of_a_twin_lie_both_in_the_chunks_shard_or_both_outside() -> None:
    made = {"index": 0, "seed": 0, "image_key": "k", "image_sha256": "0" * 64, "image_bytes": 1, "image_offset": 512}
    mask = {"mask_key": "k", "mask_sha256": "0" * 64, "mask_bytes": 1}
    assert SampleRecord(**made).mask_offset is None
    assert SampleRecord(**made, **mask, mask_offset=1536).mask_offset == 1536
    for wrong in (mask, {"mask_offset": 5}, {**mask, "mask_offset": 5, "image_offset": None}):
        with pytest.raises(ValidationError, match="one file in a shard and one outside"):
            SampleRecord(**{**made, **wrong})
    with pytest.raises(ValidationError, match="cannot have an image"):
        SampleRecord(index=0, seed=0, image_offset=0, error="no")
    record = ChunkRecord.model_validate_json(OLD_RECORD).model_dump()
    shard = {"key": "k", "sha256": "0" * 64, "bytes": 10_240}
    assert ChunkRecord(**{**record, "items": [made], "shard": shard}).bytes == 10_240
    for items, of in (([made], None), ([made], {**shard, "key": "another"}), ([], shard)):
        with pytest.raises(ValidationError, match="another shard than its own, or a shard without twins"):
            ChunkRecord(**{**record, "items": items, "shard": of})


def test_a_summary_is_an_end() -> None:
    with pytest.raises(ValidationError, match="is not an end"):
        Summary(
            job="j7ybr17pesw6kn47yb0", state=JobState.RUNNING, done=0, failed=0, total=1, finished_at=NOW, seconds=0
        )


@pytest.mark.parametrize(
    ("done", "failed", "cancelled", "expected"),
    [
        (8, 0, False, JobState.SUCCEEDED),
        (8, 0, True, JobState.SUCCEEDED),
        (7, 1, False, JobState.PARTIAL),
        (7, 1, True, JobState.PARTIAL),
        (0, 8, False, JobState.FAILED),
        (3, 0, True, JobState.CANCELLED),
        (0, 0, True, JobState.CANCELLED),
        (3, 0, False, JobState.PARTIAL),
        (0, 0, False, JobState.FAILED),
    ],
)
def test_how_a_job_ends(done: int, failed: int, cancelled: bool, expected: JobState) -> None:
    assert final_state(done=done, failed=failed, total=8, cancelled=cancelled) is expected


def test_states_seen_one_after_another_are_legal() -> None:
    def seen(started: bool, cancel: bool, ended: JobState | None) -> JobState:
        return current_state(ended=ended, cancel_asked=cancel, started=started)

    assert [seen(False, False, None), seen(True, False, None), seen(True, True, None)] == [
        JobState.QUEUED,
        JobState.RUNNING,
        JobState.CANCELLING,
    ]
    assert seen(True, True, JobState.PARTIAL) is JobState.PARTIAL
    assert all(TRANSITIONS[state] == frozenset() for state in ENDED)
    assert set(TRANSITIONS) == set(JobState)
    assert TRANSITIONS[JobState.CANCELLING] == ENDED
    assert all(may_follow(JobState.QUEUED, state) for state in JobState)
    assert not any(may_follow(end, state) for end in ENDED for state in set(JobState) - {end})
    assert not may_follow(JobState.RUNNING, JobState.QUEUED)
    assert not may_follow(JobState.CANCELLING, JobState.RUNNING)
    assert [state for state in JobState if state.can_be_cancelled] == [
        JobState.QUEUED,
        JobState.RUNNING,
        JobState.CANCELLING,
    ]


def test_the_sequence_number_is_past_all_else_at_the_end() -> None:
    def number(**facts: Any) -> int:
        return sequence_number(
            **{"ended": False, "cancel_asked": False, "started": True, "recorded": 0, "chunks": 3, **facts}
        )

    assert [number(started=False), number(), number(recorded=2), number(recorded=3, cancel_asked=True)] == [0, 1, 3, 5]
    assert number(ended=True) == number(ended=True, recorded=3, cancel_asked=True) == 6
