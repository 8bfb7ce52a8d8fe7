"""The one contract that a folder and S3 both keep."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.errors import InvalidKey, ObjectExists, ObjectNotFound, ObjectTooLarge
from service.store.base import ObjectStore

HOSTILE_KEYS = [
    "",
    "/",
    "/etc/passwd",
    "../outside",
    "jobs/../../outside",
    "jobs/..",
    "..",
    ".",
    "jobs/./spec.json",
    "jobs//spec.json",
    "jobs/",
    ".incoming/draft",
    "jobs/.hidden",
    "jobs\\..\\outside",
    "C:\\outside",
    "jobs/nul\0byte",
    "jobs/new\nline",
    "jobs/\x7fdelete",
    "jobs/\x9bescape",
    "jobs/\ud800surrogate",
    "a" * 201,
    "é" * 101,
    "/".join(["part"] * 110),
]

# In the order of their UTF-8 bytes, with what is easily got wrong: '.' and '-' sort before '/', capitals
# before small letters, and U+FF5E before U+1F600 although UTF-16 has them the other way round.
ORDERED_KEYS = [
    "a-b/x",
    "a.b",
    "a/x",
    "a/x.json",
    "a/y/z",
    "a0/x",
    "ab/x",
    "b/B",
    "b/a",
    "b/~",
    "b/\u00e9",
    "b/\uff5e",
    "b/\U0001f600",
    "c d+e&f=%20?#/x",
]


def fill(store: ObjectStore, keys: list[str]) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda key: store.put(key, key.encode()), keys))


def keys_of(store: ObjectStore, prefix: str, **where: object) -> list[str]:
    return [found.key for found in store.list(prefix, **where)]  # type: ignore[arg-type]


def test_what_is_put_is_got(store: ObjectStore) -> None:
    data = bytes(range(256)) * 40
    before = datetime.now(UTC) - timedelta(seconds=2)
    written = store.put("jobs/j1/images/00000000.png", data)
    assert store.get("jobs/j1/images/00000000.png") == data
    found = store.head("jobs/j1/images/00000000.png")
    assert found is not None
    assert found.etag == written.etag
    assert found.key == written.key
    assert found.size == written.size == 10240
    assert before <= found.modified <= datetime.now(UTC) + timedelta(seconds=2)


def test_an_empty_object_is_an_object(store: ObjectStore) -> None:
    assert store.put("a/empty", b"").size == 0
    assert store.get("a/empty") == b""
    assert list(store.stream("a/empty")) == []
    assert store.get("a/empty", start=0, end=5) == b""
    assert keys_of(store, "a/") == ["a/empty"]


def test_a_second_put_replaces_the_first_and_changes_the_etag(store: ObjectStore) -> None:
    first = store.put("a/b", b"one")
    second = store.put("a/b", b"two")
    assert store.get("a/b") == b"two"
    assert first.etag != second.etag


def test_what_is_not_there_is_said_to_be_not_there(store: ObjectStore) -> None:
    store.put("jobs/here", b"x")
    for key in ("jobs/gone", "jobs/here/below", "jobs", "nowhere/at/all"):
        assert store.head(key) is None
        with pytest.raises(ObjectNotFound) as caught:
            store.get(key)
        assert caught.value.extra["key"] == key
        assert key in caught.value.detail
        with pytest.raises(ObjectNotFound):
            store.get(key, start=0, end=0)
        with pytest.raises(ObjectNotFound):
            store.stream(key)  # at the call, before a first piece is asked for


def test_a_range_is_cut_like_a_slice(store: ObjectStore) -> None:
    store.put("a/b", b"0123456789")
    for start, end in [
        (None, None),
        (0, 4),
        (3, 7),
        (3, None),
        (None, 3),
        (0, 100),
        (9, 10),
        (10, 12),
        (99, None),
        (5, 5),
    ]:
        assert store.get("a/b", start=start, end=end) == b"0123456789"[start:end]


def test_a_range_that_is_none_is_refused(store: ObjectStore) -> None:
    store.put("a/b", b"0123456789")
    for start, end in [(-1, None), (5, 4), (None, -2)]:
        with pytest.raises(ValueError, match="0 <= start <= end"):
            store.get("a/b", start=start, end=end)


def test_a_stream_gives_the_bytes_in_pieces(store: ObjectStore) -> None:
    data = bytes(range(250)) * 1000
    store.put("a/b", data)
    pieces = list(store.stream("a/b", chunk_bytes=4096))
    assert b"".join(pieces) == data
    assert max(map(len, pieces)) <= 4096
    assert len(pieces) >= 62


def test_a_stream_keeps_to_the_version_it_began_with(store: ObjectStore) -> None:
    store.put("a/b", b"x" * 300_000)
    pieces = store.stream("a/b", chunk_bytes=1000)
    got = next(pieces)
    store.put("a/b", b"y" * 300_000)
    assert got + b"".join(pieces) == b"x" * 300_000


def test_if_absent_writes_once(store: ObjectStore) -> None:
    store.put("jobs/j1/spec.json", b"first", if_absent=True)
    with pytest.raises(ObjectExists) as caught:
        store.put("jobs/j1/spec.json", b"second", if_absent=True)
    assert caught.value.extra["key"] == "jobs/j1/spec.json"
    assert store.get("jobs/j1/spec.json") == b"first"
    store.delete("jobs/j1/spec.json")
    store.put("jobs/j1/spec.json", b"third", if_absent=True)
    assert store.get("jobs/j1/spec.json") == b"third"


def test_a_deleted_object_is_gone_and_may_be_deleted_again(store: ObjectStore) -> None:
    store.put("a/b/c", b"x")
    store.put("a/d", b"x")
    store.delete("a/b/c")
    store.delete("a/b/c")
    store.delete("a/never/was")
    store.delete("a")
    assert store.head("a/b/c") is None
    assert keys_of(store, "") == ["a/d"]
    assert list(store.list_folders("a/")) == []


def test_hostile_keys_are_refused_by_every_method(store: ObjectStore) -> None:
    uses: list[Callable[[str], object]] = [
        lambda key: store.put(key, b"x"),
        lambda key: store.put(key, b"x", if_absent=True),
        lambda key: store.put_file(key, Path(__file__)),
        store.get,
        lambda key: store.get(key, start=0, end=0),
        store.stream,
        store.head,
        store.delete,
        lambda key: store.sign(key, expires_s=60),
    ]
    for key in HOSTILE_KEYS:
        for use in uses:
            with pytest.raises(InvalidKey):
                use(key)
    assert keys_of(store, "") == []


def test_hostile_prefixes_are_refused(store: ObjectStore) -> None:
    for prefix in ("/", "../", "jobs/../", "..", ".", ".inc", "jobs//", "jobs\\", "nul\0", "\ud800"):
        for use in (store.list, store.list_folders):
            with pytest.raises(InvalidKey):
                use(prefix)
    with pytest.raises(InvalidKey):
        store.list("", start_after="line\nbreak")
    with pytest.raises(InvalidKey):
        store.list_folders("no-slash-at-the-end")


def test_a_listing_is_in_the_order_of_utf8_bytes(store: ObjectStore) -> None:
    fill(store, ORDERED_KEYS[::-1])
    assert sorted(ORDERED_KEYS, key=str.encode) == ORDERED_KEYS
    assert keys_of(store, "") == ORDERED_KEYS
    for found in store.list(""):
        assert store.get(found.key) == found.key.encode()
        assert found.size == len(found.key.encode())


def test_a_listing_starts_with_its_prefix_after_its_start_and_ends_at_its_limit(store: ObjectStore) -> None:
    fill(store, ORDERED_KEYS)
    for prefix in ("", "a", "a/", "a/x", "a/x.json", "b/", "b/\u00e9", "c d+e&f=%20?#/", "nothing/", "a/x/"):
        expected = [key for key in ORDERED_KEYS if key.startswith(prefix)]
        assert keys_of(store, prefix) == expected
        for after in [*ORDERED_KEYS, "a", "a/", "a/x!", "b", "b/", "zzz", "A"]:
            rest = [key for key in expected if key.encode() > after.encode()]
            assert keys_of(store, prefix, start_after=after) == rest
            assert keys_of(store, prefix, start_after=after, limit=2) == rest[:2]
    assert keys_of(store, "", limit=0) == []


def test_folders_are_the_next_parts_of_the_keys(store: ObjectStore) -> None:
    fill(store, [*ORDERED_KEYS, "a/y/w"])
    folders = ["a-b", "a", "a0", "ab", "b", "c d+e&f=%20?#"]
    assert list(store.list_folders("")) == folders
    assert list(store.list_folders("a/")) == ["y"]
    assert list(store.list_folders("b/")) == []
    assert list(store.list_folders("nothing/")) == []
    for at, name in enumerate(folders):
        assert list(store.list_folders("", start_after=name)) == folders[at + 1 :]
        assert list(store.list_folders("", start_after=name, limit=1)) == folders[at + 1 : at + 2]


def test_listings_go_on_past_a_thousand_keys(store: ObjectStore) -> None:
    keys = [f"jobs/{number:05d}/spec.json" for number in range(1203)]
    fill(store, keys)
    assert keys_of(store, "jobs/") == keys
    assert keys_of(store, "jobs/", start_after=keys[99], limit=1050) == keys[100:1150]
    names = [key.split("/")[1] for key in keys]
    assert list(store.list_folders("jobs/")) == names
    paged: list[str] = []
    while page := list(store.list_folders("jobs/", start_after=paged[-1] if paged else None, limit=500)):
        paged += page
    assert paged == names


def test_a_listing_is_lazy(store: ObjectStore) -> None:
    fill(store, ["a/1", "a/2", "a/3"])
    listing = store.list("a/")
    assert next(listing).key == "a/1"
    for found in listing:
        store.delete(found.key)
    assert keys_of(store, "a/") == ["a/1"]


def test_a_reader_never_meets_half_an_object(store: ObjectStore) -> None:
    size = 200_000
    store.put("a/b", b"0" * size)
    stop = threading.Event()

    def overwrite() -> None:
        for turn in range(60):
            store.put("a/b", str(turn % 10).encode() * size)
        stop.set()

    writer = threading.Thread(target=overwrite)
    writer.start()
    seen = set()
    while not stop.is_set():
        data = store.get("a/b")
        assert len(data) == size
        assert len(set(data)) == 1
        seen.add(data[:1])
    writer.join()
    assert len(seen) > 1


def test_a_store_can_be_asked_whether_it_is_ready(store: ObjectStore) -> None:
    store.check()
    assert keys_of(store, "") == []


def test_a_link_lives_between_a_second_and_a_week(store: ObjectStore) -> None:
    for expires_s in (0, -1, 604_801):
        with pytest.raises(ValueError, match="1 to 604800 s"):
            store.sign("a/b", expires_s=expires_s)
    assert isinstance(store, ObjectStore)


def test_a_file_is_put_as_its_bytes_would_be(store: ObjectStore, tmp_path: Path) -> None:
    data = bytes(range(256)) * 10_000
    path = tmp_path / "file"
    path.write_bytes(data)
    written = store.put_file("a/file.tar", path)
    found = store.head("a/file.tar")
    assert found is not None
    assert (found.key, found.size, found.etag) == ("a/file.tar", len(data), written.etag)
    assert store.get("a/file.tar") == b"".join(store.stream("a/file.tar")) == data
    assert path.read_bytes() == data
    path.write_bytes(b"")
    assert store.put_file("a/file.tar", path).size == 0
    assert store.get("a/file.tar") == b""


def test_a_file_that_is_given_away_is_the_object(store: ObjectStore, tmp_path: Path) -> None:
    for number, key in enumerate(("a/one", "a/one", "a/two")):
        path = tmp_path / f"file{number}"
        path.write_bytes(b"%d" % number)
        path.chmod(0o600)
        assert store.put_file(key, path, consume=True).size == 1
    assert (store.get("a/one"), store.get("a/two")) == (b"1", b"2")
    assert keys_of(store, "") == ["a/one", "a/two"]


def test_a_file_is_put_once_if_absent(store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "file"
    for data in (b"first", b"second"):
        path.write_bytes(data)
        if data == b"first":
            store.put_file("a/b", path, if_absent=True)
            continue
        for consume in (False, True):
            with pytest.raises(ObjectExists):
                store.put_file("a/b", path, if_absent=True, consume=consume)
        assert path.read_bytes() == data
    assert store.get("a/b") == b"first"


def test_a_file_that_is_none_is_not_put(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        store.put_file("a/b", tmp_path / "nowhere")
    with pytest.raises(OSError, match=r"director|regular"):
        store.put_file("a/b", tmp_path)
    assert keys_of(store, "") == []


def test_an_object_has_five_gibibytes_at_most(store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "hole"
    with path.open("wb") as file:
        file.truncate((5 << 30) + 1)
    with pytest.raises(ObjectTooLarge, match="5368709121 bytes; the maximum is 5368709120") as caught:
        store.put_file("a/b", path, consume=True)
    assert caught.value.extra["key"] == "a/b"
    assert path.exists()
    assert keys_of(store, "") == []
