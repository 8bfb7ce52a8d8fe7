"""Samples, signed links and the archive: what a job made, as a client gets it."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

from service.api.errors import RangeNotSatisfiable
from service.api.routes import archive as archiving
from service.api.routes.archive import archive_stream
from service.api.routes.objects import byte_range
from service.errors import StoreError
from service.jobs.repository import JobRepository
from service.jobs.spec import JobSpec
from service.kit.seeds import sample_seed
from service.store import ObjectStore
from tests.service.api.support import (
    finish,
    make_chunk,
    mask_card,
    register,
)
from tests.service.masks.support import pillow_file, stripes
from tests.stored_twins import image_key, manifest_key, mask_key, shard_key


@pytest.fixture
def spec(client: TestClient, repository: JobRepository) -> JobSpec:
    """A job of 7 twins, the fourth failed."""
    body = {"model": "aerial", "classes": ["water"], "count": 7, "seed": 5}
    spec = repository.read_spec(client.post("/generate", json=body).json()["id"])
    finish(repository, spec, failed=(3,))
    return spec


@pytest.fixture(params=["objects", "shards"])
def either(request: pytest.FixtureRequest, client: TestClient, repository: JobRepository) -> JobSpec:
    """The same in each layout."""
    body = {"model": "aerial", "classes": ["water"], "count": 7, "seed": 5, "layout": request.param}
    spec = repository.read_spec(client.post("/generate", json=body).json()["id"])
    finish(repository, spec, failed=(3,))
    assert spec.layout == request.param
    return spec


def local(url: str) -> str:
    """A signed link, for the client at hand."""
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"


def test_samples_come_page_by_page_each_once(client: TestClient, either: JobSpec) -> None:
    spec = either
    seen = []
    cursor = None
    while True:
        page = client.get(
            f"/jobs/{spec.job}/samples", params={"limit": 3, **({"cursor": cursor} if cursor else {})}
        ).json()
        assert len(page["samples"]) <= 3
        seen += page["samples"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert [sample["index"] for sample in seen] == list(range(7))
    assert [sample["seed"] for sample in seen] == [sample_seed(5, index) for index in range(7)]
    assert [sample["error"] for sample in seen if sample["error"]] == ["made to fail"]
    assert seen[3]["image"] is None
    assert seen[3]["mask"] is None
    assert seen[0]["classes"] == [{"name": "water", "index": 1, "share": 1.0}]
    assert (seen[0]["confident_share"], seen[0]["mean_confidence"]) == (0.99, 0.9)


def test_a_running_job_shows_what_is_there(client: TestClient, repository: JobRepository) -> None:
    job = client.post("/generate", json={"model": "aerial", "classes": ["water"], "count": 7}).json()["id"]
    assert client.get(f"/jobs/{job}/samples").json()["samples"] == []
    make_chunk(repository, repository.read_spec(job), 2)
    assert [sample["index"] for sample in client.get(f"/jobs/{job}/samples").json()["samples"]] == [4, 5]


def test_the_manifest_is_the_archives_own(client: TestClient, either: JobSpec) -> None:
    spec = either
    answer = client.get(client.get(f"/jobs/{spec.job}").json()["links"]["manifest"])
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line)["index"] for line in answer.iter_lines()] == [0, 1, 2, 4, 5, 6]
    with zipfile.ZipFile(io.BytesIO(client.get(f"/jobs/{spec.job}/archive").content)) as archive:
        assert archive.read("manifest.jsonl") == answer.content
    assert client.get("/jobs/j0000000000aaaaaaaa/manifest").status_code == 404


def test_a_bad_cursor_is_refused(client: TestClient, spec: JobSpec) -> None:
    for cursor in ("x", "-1", "1.5", "٣", "9" * 30):
        answer = client.get(f"/jobs/{spec.job}/samples", params={"cursor": cursor})
        assert answer.status_code == 422
        assert "next_cursor" in answer.json()["detail"]


def test_signed_links_give_the_very_bytes(client: TestClient, either: JobSpec) -> None:
    sample = client.get(f"/jobs/{either.job}/samples").json()["samples"][0]
    for picture, mode in ((sample["image"], "RGB"), (sample["mask"], "P")):
        answer = client.get(local(picture["url"]))
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "image/png"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert int(answer.headers["content-length"]) == picture["bytes"] == len(answer.content)
        assert hashlib.sha256(answer.content).hexdigest() == picture["sha256"]
        assert Image.open(io.BytesIO(answer.content)).mode == mode


def test_a_link_that_was_changed_or_is_past_its_time_is_refused(client: TestClient, spec: JobSpec) -> None:
    link = local(client.get(f"/jobs/{spec.job}/samples").json()["samples"][0]["image"]["url"])
    query = parse_qs(urlsplit(link).query)
    for bad in (
        link.replace("/00000000.", "/00000001."),
        link.replace(query["expires"][0], str(int(query["expires"][0]) + 1)),
        link[:-1] + ("0" if link[-1] != "0" else "1"),
        urlsplit(link).path,
        "/objects/../../etc/passwd?expires=99999999999&signature=00",
    ):
        answer = client.get(bad)
        assert answer.status_code in (403, 404)
        assert answer.headers["content-type"] == "application/problem+json"


def test_a_link_serves_the_bytes_of_its_record_or_none(
    client: TestClient, spec: JobSpec, repository: JobRepository
) -> None:
    link = local(client.get(f"/jobs/{spec.job}/samples").json()["samples"][0]["image"]["url"])
    query = parse_qs(urlsplit(link).query)
    for changed in (link.replace(query["sha256"][0], "0" * 64), link.replace(f"sha256={query['sha256'][0]}&", "")):
        assert client.get(changed).status_code == 403
    good = client.get(link).content
    repository.store.put(image_key(repository.store, spec.job, 0), good[:-1] + b"?")
    for headers in ({}, {"Range": "bytes=1-3"}):
        answer = client.get(link, headers=headers)
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/object-damaged")
    repository.store.put(image_key(repository.store, spec.job, 0), good)
    assert client.get(link).content == good


def test_an_object_can_be_asked_for_in_parts_and_only_when_changed(client: TestClient, spec: JobSpec) -> None:
    link = local(client.get(f"/jobs/{spec.job}/samples").json()["samples"][0]["image"]["url"])
    whole = client.get(link)
    part = client.get(link, headers={"Range": "bytes=1-3"})
    assert (part.status_code, part.content) == (206, b"PNG")
    assert part.headers["content-range"] == f"bytes 1-3/{len(whole.content)}"
    head = client.head(link)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == whole.headers["content-length"]
    same = client.get(link, headers={"If-None-Match": f'"other", W/{whole.headers["etag"]}'})
    assert (same.status_code, same.content) == (304, b"")
    outside = client.get(link, headers={"Range": "bytes=99999-"})
    assert (outside.status_code, outside.json()["type"]) == (416, "/problems/range-not-satisfiable")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-0", (0, 1)),
        ("bytes=2-", (2, 10)),
        ("bytes=2-99", (2, 10)),
        ("bytes=-3", (7, 10)),
        ("bytes=-30", (0, 10)),
        ("bytes=3-2", None),
        ("bytes=0-1,4-5", None),
        ("lines=0-1", None),
        ("bytes=-", None),
    ],
)
def test_ranges_are_read_as_the_rfc_says(header: str | None, expected: tuple[int, int] | None) -> None:
    assert byte_range(header, 10) == expected


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=10-12", "bytes=-0"])
def test_ranges_outside_are_refused(header: str) -> None:
    with pytest.raises(RangeNotSatisfiable, match="10"):
        byte_range(header, 10)


def test_the_archive_is_a_whole_zip_of_the_job(client: TestClient, either: JobSpec, repository: JobRepository) -> None:
    spec = either
    answer = client.get(f"/jobs/{spec.job}/archive")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-disposition"] == f'attachment; filename="{spec.job}.zip"'
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    assert archive.testzip() is None
    assert "had not ended" not in archive.read("README.md").decode()
    made = [0, 1, 2, 4, 5, 6]
    pictures = {f"{folder}/{index:08d}.png" for folder in ("images", "masks") for index in made}
    assert set(archive.namelist()) == pictures | {"README.md", "card.json", "manifest.jsonl"}
    lines = [json.loads(line) for line in archive.read("manifest.jsonl").splitlines()]
    assert [line["index"] for line in lines] == made
    for line in lines:
        for kind in ("image", "mask"):
            data = archive.read(f"{kind}s/{line['index']:08d}.png")
            assert hashlib.sha256(data).hexdigest() == line[kind]["sha256"]
            offset = line[kind]["offset"]
            assert repository.store.get(line[kind]["key"], start=offset, end=offset and offset + len(data)) == data
        assert (line["seed"], line["steps"], line["model"]) == (sample_seed(5, line["index"]), 50, "aerial@1.10.0")
        assert line["sampler"]["timestep_spacing"] == "trailing"
        assert line["batch_shape"] == [4, 6, 64, 64]
    assert archive.read("manifest.jsonl") == repository.store.get(manifest_key(repository.store, spec.job))
    assert json.loads(archive.read("card.json"))["name"] == "aerial"
    assert "| 1 | water | #0000ff |" in archive.read("README.md").decode()


def test_the_archive_of_a_job_without_twins_is_a_zip_too(client: TestClient) -> None:
    job = client.post("/generate", json={"model": "aerial", "prompt": "lake", "count": 1}).json()["id"]
    archive = zipfile.ZipFile(io.BytesIO(client.get(f"/jobs/{job}/archive").content))
    assert archive.read("manifest.jsonl") == b""
    assert "the prompt 'lake'" in archive.read("README.md").decode()
    assert "The job had not ended" in archive.read("README.md").decode()


def test_images_without_masks_are_whole_samples_and_an_archive_of_images(
    client: TestClient, repository: JobRepository, store: ObjectStore
) -> None:
    register(store, mask_card())
    body = {"model": "tissue", "prompt": "glands", "count": 3}
    spec = repository.read_spec(client.post("/generate", json=body).json()["id"])
    finish(repository, spec, with_masks=False)
    samples = client.get(f"/jobs/{spec.job}/samples").json()["samples"]
    assert [(sample["mask"], sample["classes"], sample["confident_share"]) for sample in samples] == [
        (None, [], None)
    ] * 3
    assert all(client.get(local(sample["image"]["url"])).status_code == 200 for sample in samples)
    archive = zipfile.ZipFile(io.BytesIO(client.get(f"/jobs/{spec.job}/archive").content))
    images = {f"images/{index:08d}.png" for index in range(3)}
    assert set(archive.namelist()) == images | {"README.md", "card.json", "manifest.jsonl"}
    assert [json.loads(line)["mask"] for line in archive.read("manifest.jsonl").splitlines()] == [None] * 3
    readme = archive.read("README.md").decode()
    assert "no masks: the model draws an image for a given mask, and this job gave none" in readme
    assert "masks/NNNNNNNN.png" not in readme


def test_the_archive_says_what_was_given(client: TestClient, store: ObjectStore) -> None:
    register(store, mask_card())
    png = base64.b64encode(pillow_file(stripes())).decode()
    body = {"model": "tissue", "prompt": "glands", "mask": [{"png": png}, {"png": png}]}
    job = client.post("/generate", json=body).json()["id"]
    readme = zipfile.ZipFile(io.BytesIO(client.get(f"/jobs/{job}/archive").content)).read("README.md").decode()
    assert "Made by tissue@1.0.0 for the prompt 'glands' and 2 given masks, in order: images" in readme
    assert "- `masks/NNNNNNNN.png`: the mask it was drawn for, one class index a pixel\n" in readme


@pytest.mark.parametrize(("layout", "reads", "ahead"), [("objects", 200, 2 * 10), ("shards", 50, 10)])
def test_the_archive_flows_before_all_of_it_is_read(
    app: FastAPI,
    client: TestClient,
    repository: JobRepository,
    monkeypatch: pytest.MonkeyPatch,
    layout: str,
    reads: int,
    ahead: int,
) -> None:
    """Of shards there is one read a chunk, of two twins each. Pieces are so small here that pictures are seen one by
    one."""
    monkeypatch.setattr(archiving, "_PIECE_BYTES", 64)
    body = {"model": "aerial", "classes": ["water"], "count": 100, "layout": layout}
    spec = repository.read_spec(client.post("/generate", json=body).json()["id"])
    finish(repository, spec)
    store, read = app.state.services.store, []
    plain_get = store.get

    def counted(key: str, **where: int) -> bytes:
        if key.endswith((".png", ".tar")):
            read.append(key)
        return plain_get(key, **where)

    store.get = counted
    pieces: Iterator[bytes] = archive_stream(app.state.services, spec)
    received = b""
    while b"images/00000000.png" not in received:
        received += next(pieces)
    # No more than what is read ahead, of 200 pictures.
    assert len(read) <= ahead
    received += b"".join(pieces)
    assert len(read) == reads
    assert zipfile.ZipFile(io.BytesIO(received)).testzip() is None


def test_a_damaged_picture_breaks_the_archive_off(
    app: FastAPI, client: TestClient, spec: JobSpec, repository: JobRepository
) -> None:
    repository.store.put(mask_key(repository.store, spec.job, 5), b"not what it was")
    with pytest.raises(StoreError, match="damaged"):
        b"".join(archive_stream(app.state.services, spec))


def test_so_does_a_damaged_part_of_a_shard(
    app: FastAPI, client: TestClient, repository: JobRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archiving, "_PIECE_BYTES", 64)
    body = {"model": "aerial", "classes": ["water"], "count": 7, "layout": "shards"}
    spec = repository.read_spec(client.post("/generate", json=body).json()["id"])
    finish(repository, spec)
    record = repository.chunks.read(spec.job, 2)
    assert record is not None
    assert record.items[1].mask_offset is not None
    data = bytearray(repository.store.get(shard_key(repository.store, spec.job, 2)))
    data[record.items[1].mask_offset] ^= 1
    repository.store.put(shard_key(repository.store, spec.job, 2), bytes(data))
    received = b""
    pieces = archive_stream(app.state.services, spec)
    damaged = rf"000002\.[0-9a-f]{{16}}\.tar \(bytes {record.items[1].mask_offset} to .*damaged"
    with pytest.raises(StoreError, match=damaged):  # noqa: PT012
        for piece in pieces:
            received += piece
    assert b"images/00000003.png" in received
    assert b"masks/00000005.png" not in received
