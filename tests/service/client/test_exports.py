"""Exports through both clients, against a stub that serves sets written by the project's own writers."""

from __future__ import annotations

import io
import json
import stat
import zipfile
from pathlib import Path
from typing import Any

import pytest

from service.client import DownloadRefused, RunFailed
from service.errors import InvalidRequest
from tests.service.client.both import BothClients
from tests.service.client.stub import API, Stub, problem
from tests.service.datasets.scenes import (
    SCENE_CLASSES,
    digests,
    export,
    scenes,
)


def zipped(files: dict[str, bytes], **fields: Any) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            for field, value in fields.items():
                setattr(info, field, value)
            file.writestr(info, data)
    return out.getvalue()


def in_parts(folder: Path) -> dict[str, bytes]:
    """A set as the server serves it: two zip parts; manifest and README beside them and in the last part."""
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }
    beside = {name: files.pop(name) for name in ("manifest.jsonl", "README.md")}
    names = list(files)
    first, second = names[: len(names) // 2], names[len(names) // 2 :]
    parts = [{name: files[name] for name in first}, {**{name: files[name] for name in second}, **beside}]
    return {f"part-{number:05d}.zip": zipped(part) for number, part in enumerate(parts)} | beside


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return export(scenes(), SCENE_CLASSES, tmp_path / "written", format="coco")


@pytest.fixture
def stub(written: Path) -> Stub:
    return Stub(in_parts(written), format="coco", polls=0)


@pytest.fixture
def client(stub: Stub, make_client: BothClients) -> Any:
    return make_client(API, "tws_key", transport=stub.transport(), retry_timeout_s=5.0)


def unpacked(folder: Path) -> dict[str, str]:
    return {path: digest for path, digest in digests(folder).items() if not path.startswith(".twinset/")}


def test_arguments_are_sent_as_they_were_given(client: Any, stub: Stub) -> None:
    dataset, augmentation = client.dataset("tiles"), client.augmentation("a7ybr17pesw6kn47yb0")
    sent = client.export(
        sources=[{"job": "j7ybr17pesw6kn47yb0"}, dataset, augmentation],
        format="folders",
        splits={"train": 0.9, "val": 0.1},
        min_confident_share=0.9,
        title=None,
    )
    assert sent.info.request == {
        "sources": [{"job": "j7ybr17pesw6kn47yb0"}, {"dataset": "tiles@3"}, {"augmentation": "a7ybr17pesw6kn47yb0"}],
        "format": "folders",
        "splits": {"train": 0.9, "val": 0.1},
        "min_confident_share": 0.9,
    }
    assert len(stub.sent("POST", "/exports")[0].headers["idempotency-key"]) == 36
    assert client.export(sources=dataset, format="coco").info.request["sources"] == [{"dataset": "tiles@3"}]
    with pytest.raises(InvalidRequest, match="a source is of type str"):
        client.export(sources=["j7ybr17pesw6kn47yb0"], format="coco")


def test_an_unanswered_export_is_sent_again_with_the_same_key(client: Any, stub: Stub) -> None:
    stub.faults["/exports"] = [problem(503), problem(502)]
    client.export(sources=[{"job": "j7ybr17pesw6kn47yb0"}], format="coco")
    assert len({request.headers["idempotency-key"] for request in stub.sent("POST", "/exports")}) == 1
    assert len(stub.sent("POST", "/exports")) == 3


def test_zip_parts_are_unpacked_to_the_set_that_was_written(
    client: Any, stub: Stub, written: Path, tmp_path: Path
) -> None:
    fetched = client.get_export("e7ybr17pesw6kn47yb0").download(tmp_path / "set", progress=False)
    assert fetched.fetched == 4
    assert unpacked(tmp_path / "set") == digests(written)
    assert len(digests(written)) >= 11
    assert not list((tmp_path / "set").rglob("*.part"))
    assert not list((tmp_path / "set").rglob("*.zip"))


def test_a_part_is_fetched_again_only_if_one_of_its_files_is_missing(
    client: Any, stub: Stub, written: Path, tmp_path: Path
) -> None:
    one = client.get_export("e7ybr17pesw6kn47yb0")
    one.download(tmp_path / "set")
    stub.requests.clear()
    assert (one.download(tmp_path / "set").unchanged, stub.fetched()) == (4, [])
    with zipfile.ZipFile(io.BytesIO(stub.files["part-00001.zip"])) as part:
        lost = part.namelist()[0]
    (tmp_path / "set" / lost).write_bytes(b"changed")
    again = one.download(tmp_path / "set")
    assert (again.unchanged, stub.fetched()) == (3, ["part-00001.zip"])
    assert unpacked(tmp_path / "set") == digests(written)
    (tmp_path / "set/README.md").unlink()
    assert one.download(tmp_path / "set").fetched == 1
    assert stub.fetched()[-1] == "README.md"


def test_an_interrupted_unpacking_is_repeated(client: Any, stub: Stub, written: Path, tmp_path: Path) -> None:
    one = client.get_export("e7ybr17pesw6kn47yb0")
    one.download(tmp_path / "set")
    for receipt in (tmp_path / "set/.twinset").glob("?" * 64 + ".json"):
        receipt.write_bytes(receipt.read_bytes()[:-9])
    stub.requests.clear()
    one.download(tmp_path / "set")
    assert sorted(stub.fetched()) == ["part-00000.zip", "part-00001.zip"]
    assert unpacked(tmp_path / "set") == digests(written)


HOSTILE = {
    "leads upwards": zipped({"good.txt": b"good", "../../out.txt": b"bad"}),
    "is absolute": zipped({"/tmp/out.txt": b"bad"}),
    "backslashes": zipped({"a\\..\\..\\..\\out.txt": b"bad"}),
    "a link": zipped({"link": b"/etc/passwd"}, external_attr=(stat.S_IFLNK | 0o777) << 16),
    "our state file": zipped({".twinset/download.json": b"{}"}),
    "no zip": b"PK\x05\x06 but no more",
    "twice": zipped({"a": b"1"})[:0] + zipped({"a": b"1", "a/b": b"2"}),
    "a bomb": zipped({"zeros": bytes(4 << 20)}, compress_type=zipfile.ZIP_DEFLATED),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_part_is_refused_and_nothing_lands_outside(
    client: Any, stub: Stub, tmp_path: Path, kind: str
) -> None:
    stub.files["part-00001.zip"] = HOSTILE[kind]
    (tmp_path / "deep").mkdir()
    before = set(tmp_path.rglob("*"))
    with pytest.raises(DownloadRefused):
        client.get_export("e7ybr17pesw6kn47yb0").download(tmp_path / "deep/set")
    new = [path for path in tmp_path.rglob("*") if path not in before and path.is_file()]
    assert all(path.is_relative_to(tmp_path / "deep/set") and not path.is_symlink() for path in new)
    assert not list((tmp_path / "deep/set").rglob("*.part")), "no partial file is left"
    assert all(path.read_bytes() != b"bad" for path in new)
    owner = json.loads((tmp_path / "deep/set/.twinset/download.json").read_text())["owner"]
    assert owner == "export e7ybr17pesw6kn47yb0"


@pytest.mark.parametrize("own", ["webdataset", "huggingface"])
def test_shards_stay_as_they_are(make_client: BothClients, tmp_path: Path, own: str) -> None:
    files = {"train-000000.tar": b"tar", "data/train-00000.parquet": b"parquet", "odd.zip": zipped({"a": b"a"})}
    client = make_client(API, transport=Stub(files, format=own, polls=0).transport())
    client.get_export("e7ybr17pesw6kn47yb0").download(tmp_path / "set")
    found = {path: (tmp_path / "set" / path).read_bytes() for path in unpacked(tmp_path / "set")}
    assert found == files


def test_files_and_exports_are_listed(client: Any, stub: Stub) -> None:
    one = next(iter(client.exports()))
    assert [file.path for file in one.files()] == sorted(stub.files)
    assert one.info.items == {"real": 1, "synthetic": 3}
    assert one.wait().state == "succeeded"
    assert one.cancel().id == one.id
    assert one.delete() is True


def test_a_download_waits_for_the_export_and_raises_if_it_failed(make_client: BothClients, tmp_path: Path) -> None:
    stub = Stub({"a.tar": b"a"}, format="webdataset", polls=3)
    export = make_client(API, transport=stub.transport()).export(sources=[{"job": "j1"}], format="webdataset")
    assert export.download(tmp_path / "set").fetched == 1
    assert len(stub.sent("GET", "/exports/e7ybr17pesw6kn47yb0")) == 3
    failing = make_client(API, transport=Stub(state="failed", polls=1).transport())
    with pytest.raises(RunFailed, match="export e7ybr17pesw6kn47yb0 failed"):
        failing.export(sources=[{"job": "j1"}], format="coco", wait=True)
    with pytest.raises(RunFailed, match="export e7ybr17pesw6kn47yb0 failed"):
        failing.get_export("e1").download(tmp_path / "x")
