"""Links to single pictures of a shard: they open these bytes until they expire, and nothing else ever."""

from __future__ import annotations

import hashlib
import io
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from fastapi import FastAPI
from PIL import Image
from pydantic import SecretStr
from starlette.testclient import TestClient

from service.api.app import create_app
from service.errors import LinkInvalid
from service.jobs.repository import JobRepository
from service.jobs.sample_files import sample_files_of
from service.jobs.sample_links import TwinLink
from service.jobs.spec import JobSpec
from service.settings import Settings
from service.store import ObjectStore
from service.store.opening import link_secret
from tests.service.api.support import (
    CLOSED_PORT,
    DictLiveState,
    NotingQueue,
    card,
    finish,
    register,
)
from tests.stored_twins import shard_key

BODY: dict[str, Any] = {"model": "aerial", "classes": ["water"], "count": 5, "seed": 5, "layout": "shards"}


@pytest.fixture
def spec(client: TestClient, repository: JobRepository) -> JobSpec:
    """A job of 5 twins in 3 shards, the second failed."""
    spec = repository.read_spec(client.post("/generate", json=BODY).json()["id"])
    finish(repository, spec, failed=(1,))
    return spec


def links_of(client: TestClient, job: str) -> list[str]:
    """The links of a job's pictures, image and mask in turn, for the client at hand."""
    samples = client.get(f"/jobs/{job}/samples").json()["samples"]
    urls = [urlsplit(sample[kind]["url"]) for sample in samples if not sample["error"] for kind in ("image", "mask")]
    return [f"{url.path}?{url.query}" for url in urls]


def changed(link: str, **parts: str) -> str:
    """The link with other values in its query."""
    url = urlsplit(link)
    return f"{url.path}?{urlencode({**dict(parse_qsl(url.query)), **parts})}"


def test_a_link_names_twin_and_picture_and_starts_with_the_services_address(
    client: TestClient, spec: JobSpec, repository: JobRepository, settings: Settings
) -> None:
    sample = client.get(f"/jobs/{spec.job}/samples").json()["samples"][2]
    shard = shard_key(repository.store, spec.job, 1).rpartition("/")[2].removesuffix(".tar")
    assert sample["index"] == 2
    for kind in ("image", "mask"):
        assert sample[kind]["url"].startswith(
            f"{settings.public_url}/twins/{spec.job}/2/{kind}.png?shard={shard}&offset="
        )
    assert len(set(links_of(client, spec.job))) == 8


def test_a_link_gives_its_picture_with_the_headers_of_what_is_served_from_a_store(
    client: TestClient, spec: JobSpec
) -> None:
    sample = client.get(f"/jobs/{spec.job}/samples").json()["samples"][3]
    link = links_of(client, spec.job)[4]
    answer = client.get(link)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert hashlib.sha256(answer.content).hexdigest() == sample["image"]["sha256"]
    assert len(answer.content) == sample["image"]["bytes"]
    with Image.open(io.BytesIO(answer.content)) as picture:
        assert (picture.mode, picture.size) == ("RGB", (16, 16))
    expected = {
        "etag": f'"{sample["image"]["sha256"]}"',
        "content-length": str(sample["image"]["bytes"]),
        "accept-ranges": "bytes",
        "cache-control": "private, max-age=3600",
        "x-content-type-options": "nosniff",
        "content-security-policy": "default-src 'none'; sandbox",
    }
    assert answer.headers.items() >= expected.items()


def test_a_picture_can_be_asked_for_in_parts_and_only_when_changed(client: TestClient, spec: JobSpec) -> None:
    link = links_of(client, spec.job)[0]
    whole = client.get(link)
    part = client.get(link, headers={"Range": "bytes=1-3"})
    assert (part.status_code, part.content) == (206, b"PNG")
    assert part.headers["content-range"] == f"bytes 1-3/{len(whole.content)}"
    head = client.head(link)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(whole.content)))
    same = client.get(link, headers={"If-None-Match": f'"other", W/{whole.headers["etag"]}'})
    assert (same.status_code, same.content) == (304, b"")
    outside = client.get(link, headers={"Range": "bytes=99999-"})
    assert (outside.status_code, outside.json()["type"]) == (416, "/problems/range-not-satisfiable")


def test_a_link_that_was_changed_in_any_part_is_refused_before_the_store_is_asked(
    app: FastAPI, client: TestClient, spec: JobSpec
) -> None:
    link, other = links_of(client, spec.job)[:2]
    sizes = dict(parse_qsl(urlsplit(link).query))
    bad = [
        link.replace("/0/image", "/2/image"),
        link.replace("/0/image", "/0/mask"),
        link.replace("/0/image", "/0/spec"),
        link.replace("/0/image", "/00/image"),
        link.replace(spec.job, "j7ybr17pesw6kn47yb0"),
        link.replace(spec.job, "..%2f..%2fkeys"),
        urlsplit(link).path,
        urlsplit(other).path + "?" + urlsplit(link).query,
        *(
            changed(link, **{part: value})
            for part in sizes
            for value in ("", "1", "-1", "x", "../x", "a\nb", "9" * 5000, "\u0663")
        ),
        changed(link, expires=str(int(sizes["expires"]) + 1)),
        changed(link, bytes=str(int(sizes["bytes"]) + 1)),
        changed(link, offset=f"0{sizes['offset']}"),
        changed(link, signature=sizes["signature"][:-1] + ("0" if sizes["signature"][-1] != "0" else "1")),
    ]

    def untouched(*_: object, **__: object) -> None:
        raise AssertionError("the store was asked")

    store = app.state.services.store
    plain = {name: getattr(store, name) for name in ("get", "head", "stream")}
    for name in plain:
        setattr(store, name, untouched)
    for each in bad:
        answer = client.get(each)
        assert answer.status_code in (403, 404), each
        assert answer.status_code == 403 or "%2f" in each, each
        assert answer.headers["content-type"] == "application/problem+json"
    for name, method in plain.items():
        setattr(store, name, method)
    assert client.get(link).status_code == 200


def test_a_link_expires(client: TestClient, spec: JobSpec, repository: JobRepository, settings: Settings) -> None:
    [first, *_] = [item for _, item in repository.chunks.items(spec)]
    [image, _] = sample_files_of(first)
    now = int(time.time())
    for expires, status in ((now - 1, 403), (now + 60, 200)):
        answer = client.get(TwinLink.to(spec.job, 0, image, expires).signed(link_secret(settings)))
        assert answer.status_code == status
        assert status == 200 or answer.json()["type"] == "/problems/link-expired"
    forged = client.get(TwinLink.to(spec.job, 0, image, now - 1).signed(b"another secret!!"))
    assert forged.json()["type"] == "/problems/link-invalid", "a forger does not learn of the time"


def test_a_link_of_one_kind_is_none_of_the_other(client: TestClient, spec: JobSpec, repository: JobRepository) -> None:
    path = f"twins/{spec.job}/0/image.png"
    url = urlsplit(links_of(client, spec.job)[0])
    assert client.get(f"/objects/{path}?{url.query}").status_code == 403
    assert client.get(f"/objects/{shard_key(repository.store, spec.job, 0)}?{url.query}").status_code == 403


def test_even_with_the_secret_nothing_but_bytes_of_shards_can_be_named() -> None:
    good = {
        "job": "j7ybr17pesw6kn47yb0",
        "index": "3",
        "kind": "mask",
        "shard": "000012",
        "offset": "512",
        "size": "90",
    }
    good |= {"sha256": "ab" * 32, "expires": "1800000000"}
    link = TwinLink.parse(**good)
    assert link.file.key == "jobs/j7ybr17pesw6kn47yb0/shards/000012.tar"
    assert link.file.span == (512, 602)
    for attempt in ("0a" * 8, "0a" * 32):
        with_attempt = TwinLink.parse(**{**good, "shard": f"000012.{attempt}"})
        assert with_attempt.file.key == f"jobs/j7ybr17pesw6kn47yb0/shards/000012.{attempt}.tar"
    for part, values in {
        "job": ("", "..", "j7ybr17pesw6kn47yb0/../x", "J7ybr17pesw6kn47yb0", "j7ybr17pesw6kn47yb0\n"),
        "index": ("", "-1", "03", "1.5", "\u0663", "3\n"),
        "kind": ("", "masks", "../mask", "IMAGE"),
        "shard": ("", "12", "../spec", "000012/x", "000012.tar", "000012.", f"000012.{'0a' * 9}", "000012\n"),
        "offset": ("", "-1", "1" * 16),
        "size": ("", "x", "1e9"),
        "sha256": ("", "AB" * 32, "ab" * 31),
        "expires": ("", "never"),
    }.items():
        for value in values:
            with pytest.raises(LinkInvalid):
                TwinLink.parse(**{**good, part: value})


def test_a_damaged_picture_is_not_served_and_one_that_has_gone_is_told(
    client: TestClient, spec: JobSpec, repository: JobRepository
) -> None:
    link = links_of(client, spec.job)[0]
    key = shard_key(repository.store, spec.job, 0)
    good = repository.store.get(key)
    repository.store.put(key, good.replace(b"IHDR", b"IHDX"))
    for headers in ({}, {"Range": "bytes=1-3"}):
        answer = client.get(link, headers=headers)
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/object-damaged")
    repository.store.delete(key)
    etag = f'"{dict(parse_qsl(urlsplit(link).query))["sha256"]}"'
    for answer in (
        client.get(link),
        client.get(link, headers={"If-None-Match": etag}),
        client.get(link, headers={"Range": "bytes=0-1"}),
    ):
        assert (answer.status_code, answer.json()["type"]) == (404, "/problems/object-not-found")
        assert "get a new link from the job" in answer.json()["detail"]
    assert client.head(link).status_code == 404


def test_they_are_served_over_s3_too_by_whichever_process_has_the_secret(s3_store: ObjectStore, tmp_path: Path) -> None:
    register(s3_store, card())
    parts: dict[str, Any] = {"store": s3_store, "queue": NotingQueue(), "live_state": DictLiveState()}
    settings = Settings(data_dir=tmp_path, store_url="s3://bucket", broker_url=CLOSED_PORT, chunk_size=2)
    shared = settings.model_copy(update={"link_secret": SecretStr("0123456789abcdef")})
    one, other, without = (
        TestClient(create_app(each, **parts), raise_server_exceptions=False) for each in (shared, shared, settings)
    )
    repository = JobRepository(s3_store)
    spec = repository.read_spec(one.post("/generate", json=BODY).json()["id"])
    finish(repository, spec)
    [image, mask, *_] = links_of(one, spec.job)
    samples = one.get(f"/jobs/{spec.job}/samples").json()["samples"]
    for link, kind in ((image, "image"), (mask, "mask")):
        assert hashlib.sha256(other.get(link).content).hexdigest() == samples[0][kind]["sha256"]
    answer = without.get(f"/jobs/{spec.job}/samples")
    assert (answer.status_code, answer.json()["type"]) == (500, "/problems/settings-error")
    assert "set TWINSET_LINK_SECRET to the same value for all API processes" in answer.json()["detail"]
    assert not (tmp_path / "secret").exists(), "none is made up that others would not know"
    loose = repository.read_spec(without.post("/generate", json={**BODY, "layout": "objects"}).json()["id"])
    finish(repository, loose)
    [sample, *_] = without.get(f"/jobs/{loose.job}/samples").json()["samples"]
    assert "X-Amz-Signature" in sample["image"]["url"]
