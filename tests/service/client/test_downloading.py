"""Downloads: complete files stay, others are fetched again, and no half-written file is ever left."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.client import AsyncTwinset, DownloadFailed, DownloadRefused, FolderTaken, Twinset
from service.client.folder import DownloadFolder, PartialFile
from tests.service.client.both import BothClients
from tests.service.client.stub import (
    API,
    Stub,
    broken_after,
    other_bytes,
    problem,
    raising,
)

ROOT = Path(__file__).parents[3]


@pytest.fixture
def stub() -> Stub:
    """An export of seven files, which are not unpacked."""
    files = {f"train-{number:06d}.tar": os.urandom(100 + 50 * number) for number in range(5)}
    return Stub({**files, "dataset.json": b"{}", "deep/er/README.md": b"# Read me"}, format="webdataset", polls=0)


def export_of(stub: Stub, make_client: BothClients, **options: Any) -> Any:
    return make_client(API, "tws_key", transport=stub.transport(), **{"retry_timeout_s": 1.0, **options}).get_export(
        "e7ybr17pesw6kn47yb0"
    )


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file() and ".twinset" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def leftovers(folder: Path) -> list[Path]:
    return list(folder.rglob("*.part"))


def test_files_are_fetched_concurrently_and_once(stub: Stub, make_client: BothClients, tmp_path: Path) -> None:
    export = export_of(stub, make_client)
    assert export.download(tmp_path / "set", workers=3, progress=False).fetched == 7
    assert files(tmp_path / "set") == stub.files
    assert leftovers(tmp_path) == []
    stub.requests.clear()
    again = export.download(tmp_path / "set")
    assert (again.fetched, again.unchanged) == (0, 7)
    assert stub.fetched() == []


def test_only_what_is_missing_or_changed_is_fetched_again(stub: Stub, make_client: BothClients, tmp_path: Path) -> None:
    export = export_of(stub, make_client)
    export.download(tmp_path / "set")
    (tmp_path / "set/train-000001.tar").unlink()
    shard = tmp_path / "set/train-000003.tar"
    shard.write_bytes(bytes([shard.read_bytes()[0] ^ 1]) + shard.read_bytes()[1:])
    (tmp_path / "set/dataset.json").write_bytes(b"{} ")
    stub.requests.clear()
    again = export.download(tmp_path / "set")
    assert sorted(stub.fetched()) == ["dataset.json", "train-000001.tar", "train-000003.tar"]
    assert (again.fetched, again.unchanged) == (3, 4)
    assert files(tmp_path / "set") == stub.files


def test_other_bytes_than_were_recorded_are_fetched_again(stub: Stub, make_client: BothClients, tmp_path: Path) -> None:
    name = "train-000002.tar"
    stub.faults[f"/files/{name}"] = [other_bytes(bytes(len(stub.files[name])))] * 2
    export_of(stub, make_client).download(tmp_path / "set")
    assert stub.fetched().count(name) == 3
    assert files(tmp_path / "set") == stub.files


def test_a_file_that_stays_wrong_is_named_and_the_others_are_fetched(
    stub: Stub, make_client: BothClients, tmp_path: Path
) -> None:
    stub.faults["/files/train-000002.tar"] = [other_bytes(b"no")] * 9
    stub.faults["/files/train-000004.tar"] = [problem(404, "object-not-found")]
    stub.faults["/files/dataset.json"] = [other_bytes(b"much more than two bytes")]
    with pytest.raises(DownloadFailed, match="3 of 7 files could not be fetched") as caught:
        export_of(stub, make_client).download(tmp_path / "set")
    assert {path: reason[:24] for path, reason in caught.value.files} == {
        "train-000002.tar": "it arrived 3 times with ",
        "train-000004.tar": "it is object-not-found",
        "dataset.json": "dataset.json was announc",
    }
    assert len(files(tmp_path / "set")) == 4
    assert leftovers(tmp_path) == []
    stub.faults.clear()
    assert export_of(stub, make_client).download(tmp_path / "set").fetched == 3


def test_a_broken_transfer_continues_where_it_broke_off(stub: Stub, make_client: BothClients, tmp_path: Path) -> None:
    name = "train-000004.tar"
    stub.faults[f"/files/{name}"] = [broken_after(stub.files[name][:120]), raising(httpx.ConnectError("refused"))]
    export_of(stub, make_client).download(tmp_path / "set")
    ranges = [request.headers.get("range") for request in stub.requests if request.url.path == f"/files/{name}"]
    assert ranges == [None, "bytes=120-", "bytes=120-"]
    assert files(tmp_path / "set") == stub.files


def test_an_overloaded_store_is_retried_later(stub: Stub, make_client: BothClients, tmp_path: Path) -> None:
    stub.faults["/files/train-000000.tar"] = [problem(503), problem(429, **{"Retry-After": "0"})]
    stub.faults["/exports/e7ybr17pesw6kn47yb0/files"] = [problem(503)]
    export_of(stub, make_client).download(tmp_path / "set")
    assert files(tmp_path / "set") == stub.files


def test_expired_links_are_requested_again(stub: Stub, make_client: BothClients, tmp_path: Path) -> None:
    stub.page, stub.link_uses = 7, 3
    export_of(stub, make_client).download(tmp_path / "set", workers=2)
    assert files(tmp_path / "set") == stub.files
    assert 2 <= len(stub.sent("GET", "/exports/e7ybr17pesw6kn47yb0/files")) <= 4
    assert stub.age == 2


def test_links_that_never_work_end_the_download(stub: Stub, make_client: BothClients, tmp_path: Path) -> None:
    class Refusing(dict[str, list[Any]]):
        def get(self, path: Any, default: Any = None) -> Any:
            return [problem(403, "link-expired")] if path.startswith("/files/") else []

    stub.faults = Refusing()
    with pytest.raises(DownloadFailed, match="are refused at once"):
        export_of(stub, make_client).download(tmp_path / "set")
    assert files(tmp_path / "set") == {}


def test_one_link_that_never_works_is_named(stub: Stub, make_client: BothClients, tmp_path: Path) -> None:
    stub.faults["/files/train-000001.tar"] = [problem(403, "link-invalid")] * 20
    with pytest.raises(DownloadFailed, match="1 of 7 files") as caught:
        export_of(stub, make_client).download(tmp_path / "set")
    assert caught.value.files == (("train-000001.tar", "its link is refused even when new"),)


ELSEWHERE = ["../out", "/etc/out", "a/../../out", "a\\..\\out", "C:out", "a//b", ".", "a/./b", "a\0b", "n" * 300]


@pytest.mark.parametrize("path", [*ELSEWHERE, ".twinset/download.json", ".TWINSET/x"])
def test_a_name_that_leads_out_of_the_folder_is_refused(
    stub: Stub, make_client: BothClients, tmp_path: Path, path: str
) -> None:
    stub.files[path] = b"hostile"
    before = set(tmp_path.rglob("*"))
    with pytest.raises(DownloadRefused, match="is not a path inside the folder"):
        export_of(stub, make_client).download(tmp_path / "deep/er/set")
    new = {found for found in tmp_path.rglob("*") if found.is_file()} - before
    assert all(found.read_bytes() != b"hostile" and found.is_relative_to(tmp_path / "deep/er/set") for found in new)


def test_a_file_with_the_name_of_a_folder_is_refused(stub: Stub, make_client: BothClients, tmp_path: Path) -> None:
    stub.files["deep"] = b"a file where a folder is"
    with pytest.raises(DownloadRefused, match="a folder has its name"):
        export_of(stub, make_client).download(tmp_path / "set", workers=1)


def test_a_cursor_that_leads_to_itself_is_not_followed_for_ever(
    stub: Stub, make_client: BothClients, tmp_path: Path
) -> None:
    page = {"files": [], "next_cursor": "1"}
    stub.faults["/exports/e7ybr17pesw6kn47yb0/files"] = [lambda request: httpx.Response(200, json=page)] * 2
    with pytest.raises(Exception, match="as its own successor"):
        export_of(stub, make_client).download(tmp_path / "set")


@pytest.mark.slow
def test_ctrl_c_leaves_nothing_half_written(stub: Stub, tmp_path: Path) -> None:
    once = threading.Lock()

    def interrupted(request: httpx.Request) -> httpx.Response:
        if once.acquire(blocking=False):
            os.kill(
                os.getpid(), signal.SIGINT
            )  # to the process, as Ctrl-C does: it is the main thread that hears of it
        time.sleep(0.05)
        return broken_after(b"some of it")(request)

    stub.page = 7
    for number in range(5):
        stub.faults[f"/files/train-{number:06d}.tar"] = [interrupted] * 50
    with Twinset(API, transport=stub.transport()) as client:
        begun = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            client.get_export("e7ybr17pesw6kn47yb0").download(tmp_path / "set", workers=4)
    assert time.monotonic() - begun < 20, "the other flows were stopped, and did not retry until the timeout"
    assert leftovers(tmp_path) == []
    assert files(tmp_path / "set").items() <= stub.files.items()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("twinset")]


def test_a_cancelled_task_leaves_nothing_half_written(stub: Stub, tmp_path: Path) -> None:
    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self) -> Any:
            while True:
                yield b"more" * 5
                await asyncio.sleep(0.001)

    async def handle(request: httpx.Request) -> httpx.Response:
        return (
            httpx.Response(200, stream=Endless())
            if request.url.path == "/files/train-000004.tar"
            else stub.handle(request)
        )

    async def main() -> None:
        stub.files["train-000004.tar"] = bytes(10**7)
        async with AsyncTwinset(API, transport=httpx.MockTransport(handle)) as client:
            export = await client.get_export("e7ybr17pesw6kn47yb0")
            task = asyncio.create_task(export.download(tmp_path / "set"))  # type: ignore[arg-type]
            while not leftovers(tmp_path):
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    assert leftovers(tmp_path) == []
    assert "train-000004.tar" not in files(tmp_path / "set")


def test_a_killed_download_continues_where_it_was(stub: Stub, make_client: BothClients, tmp_path: Path) -> None:
    program = textwrap.dedent("""
        import os, pickle, sys, httpx
        from service.client import Twinset
        from tests.service.client.stub import API, Stub
        stub = Stub(pickle.loads(sys.stdin.buffer.read()), format="webdataset", polls=0)

        class Dying(httpx.SyncByteStream):
            def __iter__(self):
                yield b"half of it"
                os.kill(os.getpid(), 9)

        def handle(request):
            answer = stub.handle(request)
            return httpx.Response(200, stream=Dying()) if request.url.path == "/files/train-000002.tar" else answer

        with Twinset(API, transport=httpx.MockTransport(handle)) as client:
            client.get_export("e7ybr17pesw6kn47yb0").download(sys.argv[1], workers=1)
    """)
    ran = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "set")],
        input=pickle.dumps(stub.files),
        capture_output=True,
        timeout=60,
        cwd=ROOT,
    )
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    there = files(tmp_path / "set")
    assert 0 < len(there) < 7
    assert there.items() <= stub.files.items()
    assert len(leftovers(tmp_path)) == 1
    export_of(stub, make_client).download(tmp_path / "set")
    assert sorted(stub.fetched()) == sorted(stub.files.keys() - there.keys())
    assert files(tmp_path / "set") == stub.files


def test_partial_files_of_a_killed_download_are_removed_once_they_are_old(
    stub: Stub, make_client: BothClients, tmp_path: Path
) -> None:
    export = export_of(stub, make_client)
    export.download(tmp_path / "set")
    fresh, old = (tmp_path / "set/.twinset" / name for name in ("a.part", "b.part"))
    for left in (fresh, old):
        left.write_bytes(b"half")
    (tmp_path / "set/.twinset/c.part").mkdir()
    for left in (old, tmp_path / "set/.twinset/c.part"):
        os.utime(left, (time.time() - 7200,) * 2)
    export.download(tmp_path / "set")
    assert leftovers(tmp_path) == [fresh], "another process may be writing it"


def test_several_downloads_may_fetch_the_same_concurrently(stub: Stub, tmp_path: Path) -> None:
    def fetch() -> None:
        try:
            with Twinset(API, transport=stub.transport()) as client:
                client.get_export("e7ybr17pesw6kn47yb0").download(tmp_path / "set", workers=2)
        except BaseException as error:
            failures.append(error)

    failures: list[BaseException] = []
    threads = [threading.Thread(target=fetch) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert files(tmp_path / "set") == stub.files
    assert leftovers(tmp_path) == []


def test_a_full_disk_raises_with_the_remedy(tmp_path: Path) -> None:
    folder = DownloadFolder(tmp_path / "set", "export e1")
    folder.open()
    with PartialFile(folder, "a.tar") as part:
        part._out = open("/dev/full", "wb", buffering=0)  # type: ignore[assignment]  # noqa: SIM115
        with pytest.raises(DownloadFailed, match=r"No space left on device.*make room"):
            part.write(b"more")


def test_a_folder_with_a_damaged_state_file_is_refused(tmp_path: Path) -> None:
    for text in ("", "[]", '{"owner": 3}'):
        folder = DownloadFolder(tmp_path / "set", "export e1")
        (tmp_path / "set/.twinset").mkdir(parents=True, exist_ok=True)
        (tmp_path / "set/.twinset/download.json").write_text(text)
        with pytest.raises(FolderTaken):
            folder.open()
