"""Datasets through both clients: uploads, imports, reports; against a stub of the API."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.client import ApiProblem, RunFailed
from service.client.packing import open_archive
from service.datasets.reading.opening import open_dataset
from service.datasets.reading.unpacking import unpack
from service.datasets.statistics import StatisticsCollector
from service.errors import InvalidRequest
from tests.service.client.both import BothClients
from tests.service.client.stub import (
    API,
    Stub,
    problem,
    raising,
)
from tests.service.datasets.scenes import (
    SCENE_CLASSES,
    digests,
    export,
    read,
    scene,
    scenes,
)


@pytest.fixture
def stub() -> Stub:
    return Stub()


@pytest.fixture
def client(stub: Stub, make_client: BothClients) -> Any:
    return make_client(API, "tws_key", transport=stub.transport(), retry_timeout_s=5.0)


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    return export(scenes(), SCENE_CLASSES, tmp_path / "tiles", format="folders")


def uploads(stub: Stub) -> list[tuple[httpx.Request, bytes]]:
    both = zip(stub.requests, stub.bodies, strict=True)
    return [(request, body) for request, body in both if (request.method, request.url.path) == ("POST", "/datasets")]


def test_a_folder_arrives_unchanged(client: Any, stub: Stub, tiles: Path, tmp_path: Path) -> None:
    (tiles / ".git").mkdir()
    (tiles / ".git/config").write_text("hidden")
    (tiles / "Thumbs.db").write_text("litter")
    dataset = client.upload_dataset("tiles", tiles, format="folders")
    ((request, body),) = uploads(stub)
    assert dict(request.url.params) == {"name": "tiles", "format": "folders"}
    assert request.headers["content-type"] == "application/x-tar"
    assert int(request.headers["content-length"]) == len(body)
    (tmp_path / "sent.tar").write_bytes(body)
    unpack(tmp_path / "sent.tar", tmp_path / "out")
    expected = {path: digest for path, digest in digests(tiles).items() if not path.startswith((".git", "Thumbs"))}
    assert digests(tmp_path / "out") == expected
    assert len(expected) == 8 * 3 + 5
    assert open_dataset(tmp_path / "out").classes == SCENE_CLASSES
    assert (dataset.id, dataset.version, dataset.source, dataset.state) == (
        "tiles@3",
        3,
        {"dataset": "tiles@3"},
        "running",
    )
    assert dataset.wait().info.classes[0].name == "water"
    assert dataset.done == 4
    assert repr(dataset).endswith("tiles@3: succeeded, 4 of 4 items>")


def test_the_same_files_make_the_same_archive_whatever_their_owner_and_time(tiles: Path, tmp_path: Path) -> None:
    with open_archive(tiles) as archive:
        first = b"".join(archive.chunks())
        assert b"".join(archive.chunks()) == first, "it can be read again"
        assert len(first) == archive.size
    for path in sorted(tiles.rglob("*"), reverse=True):
        os.utime(path, (1, 1))
        if path.is_file():
            path.chmod(0o600)
    with open_archive(tiles) as archive:
        assert b"".join(archive.chunks()) == first


@pytest.mark.parametrize("kind", ["zip", "x-tar", "gzip", "x-bzip2", "x-xz"])
def test_an_archive_is_sent_unchanged(client: Any, stub: Stub, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "archive of some kind"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("a", "a")
    else:
        packing = {"x-tar": "", "gzip": "gz", "x-bzip2": "bz2", "x-xz": "xz"}[kind]
        with tarfile.open(path, f"w:{packing}") as tar:
            tar.addfile(tarfile.TarInfo("a"), io.BytesIO())
    client.upload_dataset("tiles", str(path), wait=True)
    ((request, body),) = uploads(stub)
    assert (request.headers["content-type"], body) == (f"application/{kind}", path.read_bytes())
    assert "transfer-encoding" not in request.headers


def test_what_cannot_be_sent_is_refused_before_a_request(client: Any, stub: Stub, tiles: Path, tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / "empty").mkdir()
    (tmp_path / "deep/images").mkdir(parents=True)
    (tmp_path / "deep/images/a.png").symlink_to(tmp_path / "picture.png")
    (tmp_path / "fifo").mkdir()
    os.mkfifo(tmp_path / "fifo/pipe")
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "images").symlink_to(tiles / "images")
    for name, message in (
        ("picture.png", "no archive of a kind that is read; pack the dataset as .zip, .tar, .tar.gz"),
        ("empty", "has no files"),
        ("nowhere", "cannot be read: No such file"),
        ("deep", "links are not followed"),
        ("linked", "links are not followed"),
        ("fifo", "is not a plain file"),
    ):
        with pytest.raises(InvalidRequest, match=message):
            client.upload_dataset("tiles", tmp_path / name)
    assert uploads(stub) == []


def test_a_folder_given_by_a_link_is_accepted(client: Any, stub: Stub, tiles: Path, tmp_path: Path) -> None:
    (tmp_path / "here").symlink_to(tiles)
    client.upload_dataset("tiles", tmp_path / "here")
    assert len(uploads(stub)) == 1


def test_the_key_is_checked_before_gigabytes_are_sent(client: Any, stub: Stub, tiles: Path) -> None:
    stub.faults["/datasets"] = [problem(401, "unauthorized")]
    with pytest.raises(ApiProblem, match="TWINSET_API_KEY"):
        client.upload_dataset("tiles", tiles)
    assert uploads(stub) == []


def test_a_broken_upload_is_sent_again_with_the_same_key(client: Any, stub: Stub, tiles: Path) -> None:
    listed = lambda request: httpx.Response(200, json={"datasets": [], "next_cursor": None})  # noqa: E731
    stub.faults["/datasets"] = [
        listed,
        raising(httpx.ReadError("reset")),
        problem(429, **{"Retry-After": "0"}),
        problem(503),
    ]
    assert client.upload_dataset("tiles", tiles).version == 3
    sent = uploads(stub)
    assert len(sent) == 4
    assert len({body for _, body in sent}) == 1
    assert sent[0][1] != b""
    [key] = {request.headers["idempotency-key"] for request, _ in sent}
    client.upload_dataset("tiles", tiles)
    client.upload_dataset("tiles", tiles, idempotency_key="mine")
    client.import_dataset("tiles", "2026/january", idempotency_key="also-mine")
    another, own, imported = (request.headers["idempotency-key"] for request, _ in uploads(stub)[4:])
    assert another not in (key, "")
    assert (own, imported) == ("mine", "also-mine")
    with pytest.raises(InvalidRequest, match="idempotency_key is 'two words'"):
        client.upload_dataset("tiles", tiles, idempotency_key="two words")


def test_objects_in_the_store_are_imported_by_their_prefix(client: Any, stub: Stub) -> None:
    client.import_dataset("tiles", "2026/january", format="coco")
    ((request, body),) = uploads(stub)
    assert request.headers["content-type"] == "application/json"
    assert httpx.Response(200, content=body).json() == {"name": "tiles", "prefix": "2026/january", "format": "coco"}


def test_report_and_statistics_are_those_of_the_server(client: Any, stub: Stub, tiles: Path) -> None:
    (tiles / "images" / "stray.png").write_bytes((next((tiles / "images").iterdir())).read_bytes())
    _, report, _ = read(tiles)
    collector = StatisticsCollector(SCENE_CLASSES)
    for number in range(4):
        collector.add(scene(number))
    stub.files = {
        "report": report.model_dump_json().encode(),
        "statistics": collector.result().model_dump_json().encode(),
    }
    dataset = client.dataset("tiles")
    assert dataset.report() == report
    assert report.faults
    assert dataset.statistics() == collector.result()


def test_datasets_are_found_by_name_and_version(client: Any, stub: Stub) -> None:
    assert [dataset.id for dataset in client.datasets()] == ["tiles@3"]
    found = [client.dataset("roads"), client.dataset("roads", 2), client.dataset("roads@2")]
    assert [dataset.id for dataset in found] == ["roads@3", "roads@2", "roads@2"]
    assert [request.url.path for request in stub.requests[1:]] == [
        "/datasets/roads",
        "/datasets/roads/2",
        "/datasets/roads/2",
    ]
    stub.faults["/datasets/../jobs"] = [problem(404, "unknown-dataset")]
    with pytest.raises(ApiProblem):
        client.dataset("../jobs")
    assert stub.requests[-1].url.raw_path == b"/datasets/..%2Fjobs", "a name is one path segment, whatever it holds"
    with pytest.raises(ValueError, match="cannot be a path segment"):
        client.dataset("..")


def test_a_dataset_that_fails_its_check_raises(client: Any, stub: Stub, tiles: Path) -> None:
    stub.state = "failed"
    with pytest.raises(RunFailed, match="dataset tiles@3 failed"):
        client.upload_dataset("tiles", tiles, wait=True)
    dataset = client.dataset("tiles")
    assert dataset.cancel().id == "tiles@3"
    assert dataset.delete() is True
    assert [request.method for request in stub.requests[-2:]] == ["POST", "DELETE"]
    assert stub.requests[-2].url.path == "/datasets/tiles/3/cancel"
