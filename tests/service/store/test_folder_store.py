"""What only a folder can get wrong: links, half-written files, racing writers, foreign files, full disks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.errors import InvalidKey, ObjectExists, ObjectNotFound, StoreUnavailable
from service.store.folder import INCOMING, FolderStore

SECRET = b"0123456789abcdef"


def open_folder(root: Path) -> FolderStore:
    return FolderStore(root, link_secret=SECRET, public_url="http://127.0.0.1:8000")


@pytest.fixture
def outside(tmp_path: Path, folder_store: FolderStore) -> Path:
    """A folder beside the store with a secret in it, and symbolic links to it inside the store."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret.txt").write_bytes(b"secret")
    folder_store.put("jobs/j1/spec.json", b"{}")
    (folder_store.root / "jobs" / "way-out").symlink_to(folder)
    (folder_store.root / "way-out").symlink_to(folder)
    (folder_store.root / "jobs" / "j1" / "secret.txt").symlink_to(folder / "secret.txt")
    return folder


def test_a_symbolic_link_leads_nowhere(folder_store: FolderStore, outside: Path) -> None:
    for key in ("jobs/way-out/secret.txt", "way-out/secret.txt", "way-out/new/secret.txt"):
        with pytest.raises(InvalidKey, match="symbolic link") as refused:
            folder_store.put(key, b"")
        assert str(folder_store.root) not in refused.value.detail
        for use in (folder_store.get, folder_store.stream, folder_store.head, folder_store.delete):
            with pytest.raises(InvalidKey, match="symbolic link"):
                use(key)
        for if_absent in (False, True):
            with pytest.raises(InvalidKey, match="symbolic link"):
                folder_store.put(key, b"overwritten", if_absent=if_absent)
    with pytest.raises(InvalidKey, match="symbolic link"):
        folder_store.get("jobs/j1/secret.txt")
    assert folder_store.head("jobs/j1/secret.txt") is None
    assert [path.name for path in outside.iterdir()] == ["secret.txt"]
    assert (outside / "secret.txt").read_bytes() == b"secret"


def test_a_put_onto_a_linked_name_replaces_the_link_and_not_its_target(
    folder_store: FolderStore, outside: Path
) -> None:
    folder_store.put("jobs/j1/secret.txt", b"ours")
    assert folder_store.get("jobs/j1/secret.txt") == b"ours"
    assert (outside / "secret.txt").read_bytes() == b"secret"


def test_what_lies_behind_symbolic_links_is_never_listed(folder_store: FolderStore, outside: Path) -> None:
    assert [found.key for found in folder_store.list("")] == ["jobs/j1/spec.json"]
    assert list(folder_store.list_folders("")) == ["jobs"]
    assert list(folder_store.list_folders("jobs/")) == ["j1"]
    for prefix in ("way-out/", "jobs/way-out/"):
        for listing in (folder_store.list(prefix), folder_store.list_folders(prefix)):
            with pytest.raises(InvalidKey, match="symbolic link"):
                next(listing)


def test_the_root_itself_may_be_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "big disk").mkdir()
    (tmp_path / "store").symlink_to(tmp_path / "big disk")
    open_folder(tmp_path / "store").put("a/b", b"x")
    assert (tmp_path / "big disk" / "a" / "b").read_bytes() == b"x"


def test_a_key_is_the_path_of_a_plain_file(folder_store: FolderStore) -> None:
    folder_store.put("jobs/j1/images/00000000.png", b"png")
    assert (folder_store.root / "jobs/j1/images/00000000.png").read_bytes() == b"png"
    assert not any((folder_store.root / ".incoming").iterdir())


def test_a_name_cannot_be_an_object_and_a_folder(folder_store: FolderStore) -> None:
    folder_store.put("a/b", b"x")
    with pytest.raises(InvalidKey, match="'b' is an object, not a folder"):
        folder_store.put("a/b/c", b"y")
    for if_absent in (False, True):
        with pytest.raises(InvalidKey, match="a is a folder"):
            folder_store.put("a", b"y", if_absent=if_absent)
    assert folder_store.get("a/b") == b"x"
    assert not any((folder_store.root / ".incoming").iterdir())


def test_of_many_threads_that_put_if_absent_one_wins(folder_store: FolderStore) -> None:
    together = threading.Barrier(16)

    def race(key: str, data: bytes) -> bytes | None:
        together.wait()
        try:
            folder_store.put(key, data, if_absent=True)
        except ObjectExists:
            return None
        return data

    with ThreadPoolExecutor(16) as pool:
        for turn in range(20):
            key = f"race/{turn}/summary.json"
            told = list(pool.map(race, [key] * 16, [f"writer {writer}".encode() for writer in range(16)]))
            winners = [data for data in told if data is not None]
            assert len(winners) == 1
            assert folder_store.get(key) == winners[0]


def test_of_many_processes_that_put_if_absent_one_wins(folder_store: FolderStore) -> None:
    code = (
        "import sys; from pathlib import Path; from service.errors import ObjectExists\n"
        "from service.store.folder import FolderStore\n"
        "store = FolderStore(Path(sys.argv[1]), link_secret=b'0' * 16, public_url='http://x')\n"
        "print('ready', flush=True); sys.stdin.readline(); won = 0\n"
        "for turn in range(100):\n"
        "    try: store.put(f'race/{turn}', sys.argv[2].encode(), if_absent=True); won += 1\n"
        "    except ObjectExists: pass\n"
        "print(won)"
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", code, folder_store.root, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    won = [int(racer.communicate("go\n")[0]) for racer in racers]
    assert sum(won) == 100
    written = [folder_store.get(found.key).decode() for found in folder_store.list("race/")]
    assert [written.count(str(number)) for number in range(3)] == won


def test_a_killed_writer_leaves_nothing_listed_and_is_cleared_away_later(folder_store: FolderStore) -> None:
    folder_store.put("jobs/j1/old", b"old")
    # The child writes its bytes and stops where it would wait for the disk: the kill meets it half-way.
    code = (
        "import os, sys, time; from pathlib import Path; from service.store.folder import FolderStore\n"
        "store = FolderStore(Path(sys.argv[1]), link_secret=b'0' * 16, public_url='http://x')\n"
        "os.fsync = lambda descriptor: (print('written', flush=True), time.sleep(60))\n"
        "store.put(sys.argv[2], b'new' * 100_000)"
    )
    for key in ("jobs/j1/old", "jobs/j2/new"):
        child = subprocess.Popen([sys.executable, "-c", code, folder_store.root, key], stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"written\n"
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        child.stdout.close()
    assert [found.key for found in folder_store.list("")] == ["jobs/j1/old"]
    assert list(folder_store.list_folders("jobs/")) == ["j1"]
    assert folder_store.get("jobs/j1/old") == b"old"

    first, second = (folder_store.root / ".incoming").iterdir()
    os.utime(first, (time.time() - 7200, time.time() - 7200))
    open_folder(folder_store.root)
    assert list((folder_store.root / ".incoming").iterdir()) == [second]


def test_a_folder_without_objects_is_no_folder(folder_store: FolderStore) -> None:
    (folder_store.root / "jobs" / "j1" / "images").mkdir(parents=True)
    folder_store.put("jobs/j2/deep/er/x", b"x")
    assert list(folder_store.list_folders("jobs/")) == ["j2"]
    folder_store.delete("jobs/j2/deep/er/x")
    assert not (folder_store.root / "jobs" / "j2").exists()
    assert (folder_store.root / "jobs" / "j1" / "images").exists()


def test_writers_and_deleters_of_one_folder_do_not_trip_each_other(folder_store: FolderStore) -> None:
    def write_and_delete(writer: int) -> None:
        for data in [b"x", b""] * 30:
            folder_store.put(f"busy/place/{writer}", data)
            assert folder_store.get(f"busy/place/{writer}") == data
            folder_store.delete(f"busy/place/{writer}")

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write_and_delete, range(6)))
    assert list(folder_store.list("")) == []
    assert not (folder_store.root / "busy").exists()


def test_foreign_files_are_passed_over(folder_store: FolderStore) -> None:
    folder_store.put("a/b", b"x")
    (folder_store.root / "a" / ".DS_Store").write_bytes(b"x")
    (folder_store.root / "a" / "back\\slash").write_bytes(b"x")
    (folder_store.root / "a" / "new\nline").write_bytes(b"x")
    (folder_store.root / os.fsdecode(b"a/not-utf8-\xff")).write_bytes(b"x")
    os.mkfifo(folder_store.root / "a" / "pipe")
    assert [found.key for found in folder_store.list("")] == ["a/b"]
    assert folder_store.head("a/pipe") is None
    with pytest.raises(ObjectNotFound):
        folder_store.get("a/pipe")


def test_a_disk_that_takes_no_more_is_said_so_and_leaves_nothing_behind(folder_store: FolderStore) -> None:
    code = (
        "import resource, sys; from pathlib import Path; from service.errors import StoreUnavailable\n"
        "from service.store.folder import FolderStore\n"
        "store = FolderStore(Path(sys.argv[1]), link_secret=b'0' * 16, public_url='http://x')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: store.put('a/b', bytes(1_000_000))\n"
        "except StoreUnavailable as error: print(error.detail)"
    )
    told = subprocess.run([sys.executable, "-c", code, folder_store.root], capture_output=True, text=True).stdout
    assert str(folder_store.root) not in told
    assert "File too large" in told
    assert list(folder_store.list("")) == []
    assert not any((folder_store.root / ".incoming").iterdir())


def test_a_root_that_is_gone_or_no_folder_is_unavailable(folder_store: FolderStore, tmp_path: Path) -> None:
    folder_store.root.rename(tmp_path / "moved")
    for use in (folder_store.check, lambda: folder_store.head("a/b"), lambda: list(folder_store.list("a/"))):
        with pytest.raises(StoreUnavailable, match="no longer exists"):
            use()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreUnavailable, match="set TWINSET_STORE_URL to a folder"):
        open_folder(tmp_path / "file")


def test_who_lists_from_a_place_on_looks_at_nothing_before_it(
    folder_store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        folder_store.put(f"jobs/j1/chunks/{number:06d}.json", b"{}")
    (folder_store.root / "jobs/j1/chunks/odd name.txt").write_bytes(b"")
    looked_at: list[str] = []
    plain_stat = os.stat

    def noting_stat(path: Any, **options: Any) -> os.stat_result:
        looked_at.append(str(path))
        return plain_stat(path, **options)

    monkeypatch.setattr(os, "stat", noting_stat)
    found = list(folder_store.list("jobs/j1/chunks/", start_after="jobs/j1/chunks/000016.json"))
    assert [info.key.rpartition("/")[2] for info in found] == looked_at
    assert looked_at == ["000017.json", "000018.json", "000019.json", "odd name.txt"]
    assert not list(folder_store.list("jobs/j1/chunks/", start_after="jobs/j2")), "all of it comes before"
    assert len(list(folder_store.list("jobs/j1/chunks/", start_after="jobs/j0"))) == 21


def test_no_descriptor_is_left_open(folder_store: FolderStore) -> None:
    folder_store.put("a/b/c", b"x")
    before = len(os.listdir("/dev/fd"))
    for _ in range(5):
        folder_store.put("a/b/c", b"y")
        folder_store.get("a/b/c")
        list(folder_store.stream("a/b/c"))
        list(folder_store.list(""))
        list(folder_store.list_folders("a/"))
        half = folder_store.list("")
        next(half)
        del half
        with pytest.raises(ObjectNotFound):
            folder_store.get("a/x/y")
        folder_store.delete("a/b/none")
    assert len(os.listdir("/dev/fd")) == before


_part = st.text(st.sampled_from("abAB-._~0 \u00e9\uff5e\U0001f600"), min_size=1, max_size=3).filter(
    lambda part: part[0] != "."
)
_key = st.lists(_part, min_size=1, max_size=4).map("/".join)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keys=st.sets(_key, max_size=12), prefix=_key, after=_key, limit=st.integers(0, 5))
def test_any_listing_is_what_sorting_the_keys_would_give(
    tmp_path_factory: pytest.TempPathFactory, keys: set[str], prefix: str, after: str, limit: int
) -> None:
    keys = {key for key in keys if not any(other.startswith(f"{key}/") for other in keys)}
    store = open_folder(tmp_path_factory.mktemp("store"))
    for key in keys:
        store.put(key, b"")
    ordered = sorted(keys, key=str.encode)
    for cut in {prefix[:length] for length in range(len(prefix) + 1)} - {""}:
        if "/." in f"/{cut}" or "//" in cut:
            continue
        expected = [key for key in ordered if key.startswith(cut) and key.encode() > after.encode()]
        assert [found.key for found in store.list(cut, start_after=after, limit=limit)] == expected[:limit]
    folders = sorted({key.split("/")[0] + "/" for key in keys if "/" in key}, key=str.encode)
    assert list(store.list_folders("")) == [folder[:-1] for folder in folders]
    expected = [folder[:-1] for folder in folders if folder.encode() > f"{after.split('/')[0]}/".encode()]
    assert list(store.list_folders("", start_after=after.split("/")[0], limit=limit)) == expected[:limit]


def test_a_file_that_is_given_away_on_the_same_disk_is_not_copied(folder_store: FolderStore, tmp_path: Path) -> None:
    path, linked, link = tmp_path / "file", tmp_path / "linked", tmp_path / "link"
    path.write_bytes(b"own")
    path.chmod(0o600)
    os.utime(path, (0, 0))
    inode = path.stat().st_ino
    written = folder_store.put_file("a/own", path, consume=True)
    placed = (folder_store.root / "a" / "own").stat()
    folder_store.put("a/put", b"x")
    assert (placed.st_ino, placed.st_mode) == (inode, (folder_store.root / "a" / "put").stat().st_mode)
    assert not path.exists()
    assert written.modified.timestamp() > time.time() - 60
    # what somebody else may still reach is copied
    path.write_bytes(b"shared")
    linked.hardlink_to(path)
    link.symlink_to(path)
    for name in (path, link):
        folder_store.put_file("a/shared", name, consume=True)
        linked.write_bytes(b"SHARED")
        assert folder_store.get("a/shared") == b"shared"
        linked.write_bytes(b"shared")
    assert not any((folder_store.root / ".incoming").iterdir())


def test_a_file_that_does_not_fit_on_the_disk_is_said_so_and_leaves_nothing_behind(
    folder_store: FolderStore, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(bytes(1_000_000))
    code = (
        "import resource, sys; from pathlib import Path; from service.errors import StoreUnavailable\n"
        "from service.store.folder import FolderStore\n"
        "store = FolderStore(Path(sys.argv[1]), link_secret=b'0' * 16, public_url='http://x')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: store.put_file('a/b', Path(sys.argv[2]))\n"
        "except StoreUnavailable as error: print(error.detail)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, folder_store.root, tmp_path / "file"], capture_output=True, text=True
    ).stdout
    assert str(folder_store.root) not in told
    assert "File too large" in told
    assert list(folder_store.list("")) == []
    assert not any((folder_store.root / ".incoming").iterdir())


def flushed(folder_store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths in the store that are flushed to disk from now on; a temporary file is ``draft``."""
    found: list[str] = []
    plain = os.fsync

    def note(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}")).relative_to(folder_store.root)
        found.append("draft" if path.parts[:1] == (INCOMING,) else str(path))
        plain(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_object_is_flushed_then_named_and_an_empty_one_only_named(
    folder_store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = flushed(folder_store, monkeypatch)
    folder_store.put("jobs/j1/spec.json", b"{}")
    assert found == ["draft", ".", "jobs", "jobs/j1"]
    found.clear()
    folder_store.put("jobs/j1/started", b"")
    assert found == ["jobs/j1"]
    found.clear()
    folder_store.put("jobs/j1/listed", b"", flush=False)
    assert found == []
    folder_store.put("jobs/j1/listed", b"not empty", flush=False)
    assert found == ["draft", "jobs/j1"]
    assert folder_store.get("jobs/j1/listed") == b"not empty"


def test_an_empty_object_keeps_the_rules_of_others(folder_store: FolderStore) -> None:
    folder_store.put("jobs/j1/spec.json", b"{}")
    first = folder_store.put("jobs/j1/spec.json", b"")
    assert folder_store.get("jobs/j1/spec.json") == b""
    assert folder_store.put("jobs/j1/spec.json", b"").etag != first.etag
    with pytest.raises(ObjectExists):
        folder_store.put("jobs/j1/spec.json", b"", if_absent=True)
    for key in ("jobs/j1", "jobs/j1/spec.json/below"):
        with pytest.raises(InvalidKey):
            folder_store.put(key, b"")
    assert [info.key for info in folder_store.list("")] == ["jobs/j1/spec.json"]
    assert list((folder_store.root / INCOMING).iterdir()) == []


def test_of_many_threads_that_put_an_empty_object_if_absent_one_wins(folder_store: FolderStore) -> None:
    together = threading.Barrier(8)

    def put(_: int) -> bool:
        together.wait()
        try:
            folder_store.put("tenants/acme/jobs/j1", b"", if_absent=True)
        except ObjectExists:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(put, range(8))) == 1
