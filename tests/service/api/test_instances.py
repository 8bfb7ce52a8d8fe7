"""POST /generate with instance maps: what is stored, what goes out again, and what is refused."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from model_store.masks.resize import majority_resize, resize_instances
from service.jobs.repository import JobRepository
from service.kit.png import encode_grey_16
from service.store import ObjectStore
from tests.service.api.support import finish, mask_card, register
from tests.service.api.test_masks import make, sent, upload
from tests.service.masks.support import chunk, grey_file, palette_file, pillow_file

LABELS = np.zeros((64, 64), dtype=np.uint8)
LABELS[8:40, 8:40], LABELS[50:60, 10:60] = 1, 2
NUMBERS = np.zeros((64, 64), dtype=np.int32)
NUMBERS[8:40, 8:24], NUMBERS[8:40, 24:40], NUMBERS[50:60, 10:60] = 7, 40_000, 9
"""Two objects of class 1 that touch, and one of class 2."""
MASK, MAP = pillow_file(LABELS), encode_grey_16(NUMBERS)


@pytest.fixture(autouse=True)
def models(store: ObjectStore) -> None:
    register(store, mask_card())


def stored(repository: JobRepository, job: str, number: int = 0) -> np.ndarray:
    data = repository.store.get(repository.read_spec(job).instances_key(number))
    return np.asarray(Image.open(io.BytesIO(data)))


def test_numbers_are_kept_at_the_twins_size_and_the_request_can_be_sent_again(
    client: TestClient, repository: JobRepository
) -> None:
    job = make(client, mask=[sent(MASK), sent(MASK)], instances=[upload(client, MAP), None])
    assert np.array_equal(stored(repository, job["id"]), NUMBERS)
    spec = repository.read_spec(job["id"])
    assert spec.format == 4, "older workers leave it to newer ones"
    assert spec.instances is not None
    assert spec.instances[1] is None
    with pytest.raises(IndexError, match=f"mask 1 of job {spec.job} has no instance map"):
        spec.instances_key(1)
    assert job["parameters"]["instances"] == [upload(client, MAP), None]
    again = {name: value for name, value in job["parameters"].items() if value is not None}
    assert make(client, **again)["parameters"] == job["parameters"]


@pytest.mark.parametrize("body", [{"size": 128}, {"fit": "crop", "size": 64}, {"fit": "stretch", "size": "40x20"}])
def test_at_another_size_each_pixel_has_the_object_that_covers_it(
    client: TestClient, repository: JobRepository, body: dict[str, Any]
) -> None:
    job = make(client, mask=sent(pillow_file(LABELS)), instances=sent(MAP), **body)
    width, height = repository.read_spec(job["id"]).sides(0)
    resized = majority_resize(LABELS, (width, height))
    found = stored(repository, job["id"])
    assert np.array_equal(found, resize_instances(NUMBERS, LABELS, resized))
    assert set(np.unique(found)) == {0, 7, 9, 40_000}
    assert (resized[found == 9] == 2).all()


def test_instances_go_out_with_the_twins_and_to_a_retry(client: TestClient, repository: JobRepository) -> None:
    job = make(
        client,
        mask=[sent(MASK), sent(pillow_file(np.ones((64, 64), dtype=np.uint8)))],
        instances=[sent(MAP), None],
        count=4,
    )
    finish(repository, repository.read_spec(job["id"]), failed=(2,))
    retry = repository.read_spec(client.post(f"/jobs/{job['id']}/retry").json()["id"])
    assert retry.format == 4
    assert np.array_equal(stored(repository, retry.job), NUMBERS)


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "another size": (
        {"instances": sent(encode_grey_16(np.ones((32, 64), dtype=np.int32)))},
        "/instances",
        "instances is 64 x 32 px, and mask is 64 x 64; give the numbers of its own pixels",
    ),
    "colours": (
        {"instances": sent(pillow_file(np.zeros((64, 64, 3), dtype=np.uint8)))},
        "/instances",
        "instances has several channels; save the numbers of its objects as a grey PNG of 8 or 16 bits",
    ),
    "transparent objects": (
        {"instances": sent(pillow_file(NUMBERS.astype(np.uint16), transparency=7))},
        "/instances",
        "instances is transparent at 512 pixels of number 7; save it without transparency, with 0 where there is no",
    ),
    "a transparent colour of a palette": (
        {"instances": sent(palette_file(LABELS, [(9, 9, 9)] * 3, chunk(b"tRNS", b"\0\xff\0")))},
        "/instances",
        "instances is transparent at 500 pixels of number 2",
    ),
    "two classes": (
        {"instances": sent(encode_grey_16(np.where(LABELS > 0, 5, 0)))},
        "/instances",
        "instances has number 5 on pixels of water and, first at x 10, y 50, of vegetation, and an object has one "
        "class; give 0 where the mask shows another class",
    ),
    "no mask": (
        {"mask": None, "prompt": "cells", "count": 1, "instances": sent(MAP)},
        "/instances",
        "instances number the objects of masks, and none is given; leave it out",
    ),
    "an upload that is not there": (
        {"instances": {"upload": "ab" * 32}},
        "/instances",
        f"instances has the upload '{'ab' * 32}', which does not exist; send its file by POST /uploads",
    ),
    "a mask of 16 bits": (
        {"mask": sent(MAP)},
        "/mask",
        "mask has 16 bits a channel, and masks have 8; save its class indices as an 8-bit PNG",
    ),
    "no base64": ({"instances": {"png": "!"}}, "/instances", 'instances has a png that is not base64: "!" at'),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_the_objects_of_the_mask_is_refused(client: TestClient, name: str) -> None:
    changes, pointer, words = REFUSED[name]
    body = {"model": "tissue", "mask": sent(MASK), **changes}
    answer = client.post("/generate", json={member: value for member, value in body.items() if value is not None})
    assert answer.status_code == 422
    [fault] = answer.json()["errors"]
    assert fault["pointer"] == pointer
    assert fault["detail"].startswith(words)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_maps_of_fewer_bits_are_read_by_their_samples(
    client: TestClient, repository: JobRepository, depth: int
) -> None:
    numbers = np.where(LABELS == 1, 1, 0).astype(np.uint8)
    numbers[8:40, 24:40] = 2**depth - 1
    job = make(client, mask=sent(MASK), instances={"png": base64.b64encode(grey_file(numbers, depth=depth)).decode()})
    assert np.array_equal(stored(repository, job["id"]), numbers)
