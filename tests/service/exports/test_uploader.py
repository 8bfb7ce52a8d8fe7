"""Uploads in order, with none after a failed one; and the spools from which files are uploaded."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from service.errors import StoreUnavailable
from service.exports.uploader import Uploader
from service.kit.output_file import BLOCK_BYTES, ExportFile, Spool
from service.store.base import ObjectInfo
from tests.service.exports.resuming import CutStore


class GatedStore(CutStore):
    """A store that does no write before its gate is open."""

    gate: threading.Event

    def _cutting(self, write: Any, key: str, *arguments: Any, **options: Any) -> ObjectInfo:
        assert self.gate.wait(30)
        return super()._cutting(write, key, *arguments, **options)


@pytest.fixture
def store(tmp_path: Path) -> GatedStore:
    made = GatedStore(tmp_path / "store")
    made.gate = threading.Event()
    return made


def long_file(scratch: Path, data: bytes) -> tuple[Spool, ExportFile]:
    spool = Spool(scratch)
    spool.write(data)
    return spool, spool.as_file("long")


def test_files_are_uploaded_in_order_and_need_not_stay(store: GatedStore, tmp_path: Path) -> None:
    uploader, data = Uploader(store, tmp_path), os.urandom(3 << 20)
    spool, file = long_file(tmp_path, data)
    uploader.upload("a/long", file)
    spool.close()
    uploader.upload("a/short", ExportFile.of("short", b"x"))
    assert store.written == []
    store.gate.set()
    uploader.flush()
    assert [key.partition(".")[0] for key in store.written] == ["a/long", "a/short"]
    assert store.get(store.written[0]) == data
    uploader.close()
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_nothing_is_uploaded_after_a_failure(store: GatedStore, tmp_path: Path) -> None:
    store.cut = 1
    uploader = Uploader(store, tmp_path)
    spool, file = long_file(tmp_path, bytes(3 << 20))
    uploader.upload("a/0", ExportFile.of("", b"0"))
    uploader.upload("a/1", file)
    spool.close()
    uploader.upload("a/2", ExportFile.of("", b"2"))
    store.gate.set()
    with pytest.raises(StoreUnavailable, match="a/1"):
        uploader.flush()
    with pytest.raises(StoreUnavailable, match="a/1"):
        uploader.upload("a/3", ExportFile.of("", b"3"))
    uploader.close()
    assert [key.partition(".")[0] for key in store.written] == ["a/0"]
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 2 * BLOCK_BYTES, 5_000_000])
def test_a_spool_returns_what_was_written(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    with Spool(tmp_path) as spool:
        for start in range(0, size, 300_001):
            spool.write(data[start : start + 300_001])
        file = spool.as_file("x")
        assert (file.size, file.digest(), file.read()) == (size, hashlib.sha256(data).hexdigest(), data)
        for start in (0, 1, size // 2, size):
            assert b"".join(spool.pieces(min(start, size))) == data[min(start, size) :]
        spool.write(b"more")
        assert spool.as_file("x").digest() == hashlib.sha256(data + b"more").hexdigest()
        assert b"".join(spool.pieces(size)) == b"more"
        moved = spool.as_file("x").move(tmp_path / "there")
        assert moved == (size + 4 >= BLOCK_BYTES)
        if moved:
            assert (tmp_path / "there").read_bytes() == data + b"more"
            (tmp_path / "there").unlink()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "use",
    [
        lambda spool: [spool.write(bytes(1 << 20)) for _ in range(5)],
        lambda spool: spool.as_file("x"),
        lambda spool: list(spool.pieces()),
    ],
    ids=["written on", "taken", "read"],
)
def test_a_full_disk_raises_at_the_next_write_or_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, use: Any
) -> None:
    with open("/dev/full", "w+b", buffering=0) as full, Spool(tmp_path) as spool:
        monkeypatch.setattr(spool, "_opened", lambda: full)
        spool.write(bytes(BLOCK_BYTES))
        with pytest.raises(OSError, match="No space left"):
            use(spool)
