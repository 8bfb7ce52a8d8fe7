"""Prepared copies of datasets: those not used lately go, and never one that a process uses."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from service.settings import Settings
from tests.workers.data.made_sets import write_prepared
from workers.data import prepared_copies
from workers.data.prepared_copies import WRITTEN, delete_old, preparing, use
from workers.data.preparing import prepare

HOLD = """
import sys
from pathlib import Path
from workers.data.prepared_copies import use
print(use(Path(sys.argv[1])), flush=True)
input()
"""


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """No copy is in use by this process."""
    monkeypatch.setattr(prepared_copies, "_held", {})


def copy_of(folder: Path, name: str, size: int, used_at: int) -> Path:
    copy = folder / name
    (copy / "shards").mkdir(parents=True)
    (copy / "shards" / "0.tar").write_bytes(bytes(size))
    (copy / WRITTEN).write_bytes(b"{}")
    os.utime(copy / WRITTEN, (used_at, used_at))
    return copy


def test_the_least_recently_used_copies_are_deleted_down_to_the_limit(tmp_path: Path) -> None:
    old, new, middle = (copy_of(tmp_path, name, 1000, at) for name, at in (("a", 10), ("b", 30), ("c", 20)))
    assert delete_old(tmp_path, 3 * 1002) == []
    assert delete_old(tmp_path, 2 * 1002) == [old]
    assert (old.exists(), middle.exists(), new.exists()) == (False, True, True)
    assert use(middle)
    prepared_copies._held.clear()
    assert delete_old(tmp_path, 1500) == [new], "a copy is young by its last use"
    assert not use(new)


def test_a_copy_that_any_process_uses_stays(tmp_path: Path) -> None:
    mine, theirs, free = (copy_of(tmp_path, name, 1000, at) for at, name in enumerate(("a", "b", "c")))
    assert use(mine)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(theirs)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        assert delete_old(tmp_path, 0) == [free]
        other.communicate("\n")
    assert delete_old(tmp_path, 0) == [theirs]
    assert mine.exists()


def test_what_a_killed_process_left_of_a_copy_is_deleted_and_what_is_being_made_stays(tmp_path: Path) -> None:
    left, half, made = tmp_path / "a.part", tmp_path / "b", tmp_path / "c.part"
    for folder in (left, half, made):
        (folder / "scratch").mkdir(parents=True)
    with preparing(tmp_path / "c"):
        assert delete_old(tmp_path, 10**9) == []
    assert [folder.exists() for folder in (left, half, made)] == [False, False, True]


def test_an_archive_behind_a_link_is_read_anew_once_it_has_changed(tmp_path: Path) -> None:
    archive, link = tmp_path / "v.tar", tmp_path / "link.tar"
    link.symlink_to(archive)
    for count in (3, 5):
        with tarfile.open(archive, "w") as tar:
            tar.add(write_prepared(tmp_path / f"{count}", count, 16), "made")
        assert prepare(link, settings=Settings(data_dir=tmp_path / "home")).report.items == count


def test_preparing_another_dataset_deletes_what_is_beyond_the_limit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(data_dir=tmp_path / "home", prepared_max_gb=0)
    first, second = (write_prepared(tmp_path / name, 4, 16) for name in ("first", "second"))
    kept = prepare(first, settings=settings).open_dataset.root
    assert kept is not None
    assert kept.exists(), "the copy that is made is in use"
    prepared_copies._held.clear()
    other = prepare(second, settings=settings).open_dataset.root
    assert [copy.name for copy in (tmp_path / "home" / "prepared").glob("*/")] == [other.name]  # type: ignore[union-attr]
    assert f"deleted {kept}, a copy of a dataset that was not used lately" in capsys.readouterr().err
    assert prepare(first, settings=settings).open_dataset.root == kept
