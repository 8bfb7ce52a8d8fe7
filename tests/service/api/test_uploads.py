"""POST /uploads: a file in, its id out, once however often it is sent."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from service.api.app import create_app
from service.store import ObjectStore, keys
from tests.service.api.support import DictLiveState, NotingQueue, settings_for
from tests.service.masks.support import (
    file,
    grey_file,
    header,
    painted,
    pillow_file,
    stripes,
)

PNG = grey_file(stripes(24))
SHA256 = hashlib.sha256(PNG).hexdigest()
KIND = {"Content-Type": "image/png"}


def test_a_file_is_kept_under_the_hash_of_its_bytes(client: TestClient, store: ObjectStore) -> None:
    answer = client.post("/uploads", content=PNG, headers=KIND)
    assert answer.status_code == 201
    assert answer.json() == {"upload": SHA256, "bytes": len(PNG), "width": 24, "height": 24}
    assert store.get(keys.upload("default", SHA256)) == PNG


def test_sending_it_again_answers_the_same_and_mends_a_damaged_one(client: TestClient, store: ObjectStore) -> None:
    first = client.post("/uploads", content=PNG, headers=KIND)
    store.put(keys.upload("default", SHA256), b"spoilt")
    again = client.post("/uploads", content=iter([PNG[:50], PNG[50:]]), headers=KIND)
    assert (again.status_code, again.json()) == (201, first.json())
    assert [info.key for info in store.list("uploads/")] == [keys.upload("default", SHA256)]
    assert store.get(keys.upload("default", SHA256)) == PNG


@pytest.mark.parametrize("kind", ["application/octet-stream", "multipart/form-data; boundary=x", "image/jpeg", None])
def test_a_body_that_says_it_is_no_png_is_415(client: TestClient, store: ObjectStore, kind: str | None) -> None:
    answer = client.post("/uploads", content=PNG, headers={} if kind is None else {"Content-Type": kind})
    assert answer.status_code == 415
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "/problems/wrong-content-type"
    assert (kind or "missing") in answer.json()["detail"]
    assert "as image/png" in answer.json()["detail"]
    assert list(store.list("uploads/")) == []


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the file is empty; send a PNG file"),
        (pillow_file(painted(stripes()), "JPEG"), "the file is not a PNG: it looks like a JPEG"),
        (PNG[:60], "the file breaks off after 60 bytes"),
        (grey_file(np.zeros((9, 7))), "the file is 7 x 9 px; its side must be 8 to 4096 px"),
        (file(header(30_000, 30_000)), "its side must be 8 to 4096 px"),
        (file(header(64, 64, depth=16, colour=2)), "16 bits in each of several channels; save it as a grey PNG"),
    ],
)
def test_what_can_be_no_models_mask_is_refused_at_once(
    client: TestClient, store: ObjectStore, data: bytes, words: str
) -> None:
    answer = client.post("/uploads", content=data, headers=KIND)
    assert answer.status_code == 422
    problem = answer.json()
    assert problem["type"] == "/problems/invalid-request"
    assert words in problem["detail"]
    assert problem["errors"] == [{"pointer": "", "detail": problem["detail"]}]
    assert list(store.list("uploads/")) == []


@pytest.fixture
def narrow_client(tmp_path: Path) -> Iterator[TestClient]:
    settings = settings_for(tmp_path / "narrow", max_body_bytes=1024, max_mask_px=16)
    with TestClient(create_app(settings, queue=NotingQueue(), live_state=DictLiveState())) as client:
        yield client


def test_the_services_limits_hold(narrow_client: TestClient) -> None:
    large = narrow_client.post("/uploads", content=PNG + bytes(1024), headers=KIND)
    assert (large.status_code, large.json()["type"]) == (413, "/problems/body-too-large")
    wide = narrow_client.post("/uploads", content=PNG, headers=KIND)
    assert (wide.status_code, "its side must be 8 to 16 px" in wide.json()["detail"]) == (422, True)
    assert narrow_client.post("/uploads", content=grey_file(stripes(16)), headers=KIND).status_code == 201


def test_what_is_kept_is_what_was_sent_to_the_byte(client: TestClient, store: ObjectStore) -> None:
    with_text = pillow_file(Image.fromarray(stripes()), dpi=(72, 72))
    upload = client.post("/uploads", content=with_text, headers=KIND).json()["upload"]
    assert store.get(keys.upload("default", upload)) == with_text
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(with_text))), stripes())
