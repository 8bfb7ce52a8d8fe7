"""POST /generate with masks: what is stored for the worker, what is remembered, and what goes together."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from model_store.masks.resize import majority_resize
from service.jobs.repository import JobRepository
from service.store import ObjectStore, keys
from tests.service.api.support import (
    NotingQueue,
    binary_card,
    finish,
    mask_card,
    register,
)
from tests.service.masks.support import (
    COLOURS,
    painted,
    pillow_file,
    stripes,
)
from tests.stored_twins import input_key

LABELS = stripes(side=128)
PNG = pillow_file(LABELS)
OTHERS = [pillow_file(np.full((64, 64), index, dtype=np.uint8)) for index in range(3)]


@pytest.fixture(autouse=True)
def mask_models(store: ObjectStore) -> None:
    register(store, mask_card(), binary_card())


def sent(data: bytes) -> dict[str, str]:
    return {"png": base64.b64encode(data).decode()}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def upload(client: TestClient, data: bytes) -> dict[str, str]:
    return {"upload": client.post("/uploads", content=data, headers={"Content-Type": "image/png"}).json()["upload"]}


def make(client: TestClient, **body: Any) -> dict[str, Any]:
    answer = client.post("/generate", json={"model": "tissue", **body})
    assert answer.status_code == 202, answer.json()
    return answer.json()


def stored(repository: JobRepository, job: str, number: int = 0) -> Image.Image:
    return Image.open(io.BytesIO(repository.store.get(input_key(repository.store, job, number))))


def test_a_mask_is_stored_as_class_indices_at_the_jobs_size_with_the_cards_colours(
    client: TestClient, repository: JobRepository
) -> None:
    job = make(client, mask=sent(PNG))
    assert (job["total"], job["parameters"]["size"]) == (1, 64)
    image = stored(repository, job["id"])
    assert (image.mode, image.size) == ("P", (64, 64))
    assert np.array_equal(np.asarray(image), majority_resize(LABELS, 64))
    assert np.array_equal(np.asarray(image.convert("RGB")), painted(majority_resize(LABELS, 64)))
    spec = repository.read_spec(job["id"])
    assert spec.mask is not None
    assert [mask.upload for mask in spec.mask] == [sha256(PNG)]
    assert spec.mask[0].sha256 == sha256(repository.store.get(input_key(repository.store, job["id"], 0)))
    assert repository.store.get(keys.upload("default", sha256(PNG))) == PNG


def test_at_its_own_size_a_mask_comes_through_as_it_is_however_it_was_encoded(
    client: TestClient, repository: JobRepository
) -> None:
    files = [PNG, pillow_file(painted(LABELS)), pillow_file(np.dstack([painted(LABELS), np.full_like(LABELS, 255)]))]
    jobs = [make(client, mask=sent(data), size=128)["id"] for data in files]
    for job in jobs:
        assert np.array_equal(np.asarray(stored(repository, job)), LABELS)
    specs = [repository.read_spec(job).mask or () for job in jobs]
    assert len({masks[0].sha256 for masks in specs}) == 1
    assert len({masks[0].upload for masks in specs}) == 3


def test_the_masks_are_stored_before_the_spec_and_the_spec_before_its_chunks(
    client: TestClient, store: ObjectStore, queue: NotingQueue
) -> None:
    order: list[str] = []
    plain_put, plain_send = store.put, queue.send_chunk
    store.put = lambda key, data, **how: order.append(key) or plain_put(key, data, **how)  # type: ignore[method-assign,func-returns-value]
    queue.send_chunk = lambda job, chunk, *_: order.append("sent") or plain_send(job, chunk)  # type: ignore[method-assign,func-returns-value]
    job = make(client, mask=[sent(PNG), sent(OTHERS[0])])["id"]
    masks = {keys.upload("default", sha256(data)) for data in (PNG, OTHERS[0])} | {
        input_key(store, job, n) for n in (0, 1)
    }
    assert set(order[:4]) == masks
    assert order[4:] == [keys.tenant_job("default", job), keys.job_spec(job), "sent"]


def test_samples_take_the_masks_in_turn_and_the_manifest_says_which(
    client: TestClient, repository: JobRepository
) -> None:
    ids = [upload(client, data) for data in OTHERS]
    job = make(client, mask=[ids[0], sent(OTHERS[1]), ids[2]], count=7, seed=3)
    assert job["parameters"]["mask"] == ids
    spec = repository.read_spec(job["id"])
    for number in range(3):
        assert np.unique(np.asarray(stored(repository, spec.job, number))).tolist() == [number]
    finish(repository, spec)
    lines = [json.loads(line) for line in client.get(f"/jobs/{spec.job}/manifest").text.splitlines()]
    assert [line["given_mask"]["number"] for line in lines] == [0, 1, 2, 0, 1, 2, 0]
    assert spec.mask is not None
    assert lines[4]["given_mask"] == {"number": 1, "upload": ids[1]["upload"], "sha256": spec.mask[1].sha256}
    assert {line["guidance_target"] for line in lines} == {"text"}
    plain = repository.read_spec(
        client.post("/generate", json={"model": "aerial", "prompt": "p", "count": 1}).json()["id"]
    )
    finish(repository, plain)
    line = json.loads(client.get(f"/jobs/{plain.job}/manifest").text)
    assert (line["given_mask"], line["guidance_target"]) == (None, None)


def test_masks_say_how_many_twins_are_made_unless_a_count_does(client: TestClient) -> None:
    masks = [sent(data) for data in OTHERS]
    assert make(client, mask=masks)["total"] == 3
    assert make(client, mask=masks, count=2)["total"] == 2
    assert make(client, mask=masks[0], count=5)["total"] == 5
    assert make(client, mask=masks * 2)["parameters"]["count"] == 6


def test_a_request_remembers_ids_and_no_files(client: TestClient, repository: JobRepository) -> None:
    body = {"mask": [sent(PNG), upload(client, OTHERS[0])], "seed": 1, "pairs": True}
    job = make(client, **body)
    wanted = [{"upload": sha256(PNG)}, {"upload": sha256(OTHERS[0])}]
    assert repository.read_spec(job["id"]).request == {"model": "tissue", **body, "mask": wanted}
    one = make(client, mask=sent(PNG))
    assert repository.read_spec(one["id"]).request == {"model": "tissue", "mask": {"upload": sha256(PNG)}}


@pytest.mark.parametrize("encoding", [None, "index", "colours"])
def test_the_parameters_sent_again_give_the_same_masks(
    client: TestClient, repository: JobRepository, encoding: str | None
) -> None:
    labels = [LABELS, np.full((64, 64), 2, dtype=np.uint8)]
    files = [pillow_file(painted(each) if encoding == "colours" else each) for each in labels]
    body = {
        "prompt": "glands",
        "mask": [sent(data) for data in files],
        "guidance_target": "joint",
        "count": 5,
        "size": 128,
    }
    first = make(client, **body, **({"mask_encoding": encoding} if encoding else {}))
    assert first["parameters"]["mask_encoding"] == (encoding or "auto")
    again = make(client, **{name: value for name, value in first["parameters"].items() if value is not None})
    assert again["parameters"] == first["parameters"]
    assert client.get(f"/jobs/{first['id']}").json()["parameters"] == first["parameters"]
    specs = [repository.read_spec(job["id"]) for job in (first, again)]
    assert specs[0].mask == specs[1].mask
    assert (specs[1].prompt, specs[1].guidance_target, specs[1].count) == ("glands", "joint", 5)


def test_a_mask_sent_along_and_the_same_sent_before_are_one_request_to_a_key(
    client: TestClient, queue: NotingQueue
) -> None:
    headers = {"Idempotency-Key": "k"}
    first = client.post("/generate", json={"model": "tissue", "mask": sent(PNG)}, headers=headers).json()
    by_id = client.post("/generate", json={"model": "tissue", "mask": {"upload": sha256(PNG)}}, headers=headers)
    assert (by_id.status_code, by_id.json()["id"]) == (202, first["id"])
    assert queue.sent == [(first["id"], 0)]
    other = client.post("/generate", json={"model": "tissue", "mask": sent(OTHERS[0])}, headers=headers)
    assert (other.status_code, other.json()["job"]) == (409, first["id"])


def test_a_crash_before_the_spec_is_healed_by_the_retry_masks_and_all(
    client: TestClient, repository: JobRepository
) -> None:
    body, headers = {"model": "tissue", "mask": sent(PNG)}, {"Idempotency-Key": "k"}
    job = client.post("/generate", json=body, headers=headers).json()["id"]
    given = input_key(repository.store, job, 0)
    whole = repository.store.get(given)
    for key in (keys.job_spec(job), given):
        repository.store.delete(key)
    assert client.post("/generate", json=body, headers=headers).json()["id"] == job
    assert input_key(repository.store, job, 0) == given
    assert repository.store.get(given) == whole


COMBINATIONS: dict[str, tuple[str, dict[str, Any], str | None]] = {
    "prompt": ("tissue", {"prompt": "glands", "count": 1}, None),
    "mask": ("tissue", {"mask": sent(PNG)}, None),
    "prompt and mask": ("tissue", {"prompt": "glands", "mask": sent(PNG)}, None),
    "nothing": ("tissue", {"count": 1}, "nothing to make: give prompt, or mask, or prompt and mask"),
    "classes": (
        "tissue",
        {"classes": ["water"], "count": 1},
        "tissue@1.0.0 takes no classes; give prompt, or mask, or prompt and mask",
    ),
    "prompt for masks alone": ("polyps", {"prompt": "p", "count": 1}, "polyps@1.0.0 takes no prompt; give mask"),
    "both for masks alone": ("polyps", {"prompt": "p", "mask": sent(OTHERS[0])}, "takes no prompt; give mask"),
    "mask for classes": ("aerial", {"mask": sent(PNG)}, "aerial@1.10.0 takes no mask; give prompt, or classes"),
    "one of two": ("strict", {"mask": sent(PNG)}, "strict@1.0.0 does not take mask alone: give prompt and mask"),
    "two of two": ("strict", {"mask": sent(PNG), "prompt": "p"}, None),
    "two that go apart": (
        "apart",
        {"mask": sent(PNG), "prompt": "p"},
        "not take prompt and mask together: give prompt, or mask",
    ),
}


@pytest.mark.parametrize("case", COMBINATIONS)
def test_the_card_says_what_goes_together(
    client: TestClient, store: ObjectStore, repository: JobRepository, case: str
) -> None:
    register(store, mask_card("strict", input_sets=[["prompt", "mask"]]), mask_card("apart", input_sets=[]))
    model, body, words = COMBINATIONS[case]
    answer = client.post("/generate", json={"model": model, **body})
    if words is None:
        assert answer.status_code == 202
        spec = repository.read_spec(answer.json()["id"])
        assert set(spec.inputs) == body.keys() - {"count"}
    else:
        assert answer.status_code == 422
        assert words in answer.json()["detail"]
        assert list(repository.jobs()) == []


def test_pairs_are_demanded_only_of_models_that_make_them(client: TestClient) -> None:
    refused = client.post("/generate", json={"model": "tissue", "prompt": "glands", "count": 1, "pairs": True})
    assert refused.status_code == 422
    [fault] = refused.json()["errors"]
    assert fault["pointer"] == "/pairs"
    assert "pairs is true: tissue@1.0.0 makes no masks itself" in fault["detail"]
    assert "by prompt alone comes without; give a mask with it, or leave pairs out" in fault["detail"]
    make(client, prompt="glands", count=1, pairs=False)
    make(client, prompt="glands", mask=sent(PNG), pairs=True)
    make(client, mask=sent(PNG), pairs=True)
    make(client, model="aerial", prompt="a lake", count=1, pairs=True)


def test_guidance_goes_to_the_targets_that_the_card_lists(
    client: TestClient, store: ObjectStore, repository: JobRepository
) -> None:
    narrow = mask_card(
        "narrow", guidance_targets=["mask", "joint"], defaults={"steps": 50, "guidance_scale": 1.0, "eta": 0.0}
    )
    register(store, narrow)
    assert make(client, prompt="p", count=1)["parameters"]["guidance_target"] == "text"
    job = make(client, prompt="p", mask=sent(PNG), guidance_target="mask")
    assert repository.read_spec(job["id"]).guidance_target == "mask"
    assert make(client, model="narrow@1.0.0", prompt="p", count=1)["parameters"]["guidance_target"] == "mask"
    refused = client.post(
        "/generate", json={"model": "narrow@1.0.0", "prompt": "p", "count": 1, "guidance_target": "text"}
    )
    assert refused.status_code == 422
    assert refused.json()["errors"] == [
        {
            "pointer": "/guidance_target",
            "detail": 'guidance_target is "text": narrow@1.0.0 can strengthen mask, joint; '
            "take one of these, or leave it out",
        }
    ]


def test_the_colours_of_the_tests_are_those_of_the_card() -> None:
    assert [tuple(entry["colour"]) for entry in mask_card()["classes"]] == COLOURS
