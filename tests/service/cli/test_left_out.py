"""What ``datasets`` and ``export`` leave out is named and in the exit code; splits are renamed by ``--split-map``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from service.cli.root import run
from tests.service.cli.twin_folders import CLASSES, real_folder, twin_folder, twin_mask
from tests.service.datasets.hand_written import listed
from tests.service.datasets.scenes import noise, png


def export(*arguments: object) -> int:
    return run(["export", *map(str, arguments)])


def splits_of(folder: Path) -> list[str]:
    return [json.loads(line)["split"] for line in (folder / "manifest.jsonl").read_text().splitlines()]


def split_folder(folder: Path, *splits: str) -> Path:
    """A dataset of one image in each split, all of one name, as COCO's files name them."""
    (folder / "annotations").mkdir(parents=True)
    for number, split in enumerate(splits):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "images" / split / "a.png").write_bytes(noise(number, 12, 12))
        image = {"id": 1, "file_name": "a.png", "width": 12, "height": 12}
        square = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 6, 1, 6, 6, 1, 6]]}
        about = {"images": [image], "annotations": [square], "categories": [{"id": 1, "name": "cell"}]}
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(about))
    return folder


def test_an_export_that_leaves_something_out_says_what_and_ends_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiles = real_folder(tmp_path / "tiles", CLASSES, 4)
    (tiles / "images" / "real1.png").write_bytes(b"no image")
    assert export(tiles, "--format", "folders", "--out", tmp_path / "set") == 1
    told = capsys.readouterr()
    assert "3 pairs as folders" in told.out
    assert "Skipped 1 of tiles: 1 unreadable" in told.err
    assert "images/real1.png" in told.err
    assert len(splits_of(tmp_path / "set")) == 3
    assert run(["datasets", "check", str(tiles)]) == 1
    assert run(["datasets", "stats", str(tiles)]) == 1
    (tiles / "images" / "real1.png").write_bytes(noise(77, 24, 24))
    assert export(tiles, "--format", "folders", "--out", tmp_path / "whole") == 0
    assert run(["datasets", "stats", str(tiles)]) == 0


def test_an_export_without_any_item_of_one_of_its_sources_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiles = real_folder(tmp_path / "tiles", CLASSES, 2)
    for number in range(2):
        (tiles / "masks" / f"real{number}.png").write_bytes(png(np.full((3, 3), 1, dtype=np.uint8)))
    assert export(twin_folder(tmp_path / "twins"), tiles, "--format", "coco", "--out", tmp_path / "set") == 1
    assert "no pair of an image and its mask was found in tiles" in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


def test_an_item_between_two_splits_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    twins = twin_folder(tmp_path / "twins", count=2)
    out = tmp_path / "set"
    assert export(twins, "--format", "folders", "--out", out) == 0
    manifest = out / "manifest.jsonl"
    # as in a set of twins whose masks were merged
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    lines[0]["source_mask"] = "+".join("abcdefgh")
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert export(out, "--format", "folders", "--out", tmp_path / "again", "--split", "train=0.5,val=0.5") == 1
    told = capsys.readouterr().err
    assert "Skipped 1, between splits" in told
    assert "j1/00000000" in told
    assert len(splits_of(tmp_path / "again")) == 1


@pytest.mark.parametrize("format", ["coco", "yolo", "folders"])
def test_namesakes_in_splits_that_tools_name_are_all_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], format: str
) -> None:
    folder = split_folder(tmp_path / "cvat", "Test", "Train", "Validation", "default")
    assert run(["datasets", "check", str(folder)]) == 0
    assert "no split 1, test 1, train 1, val 1" in capsys.readouterr().out
    assert export(folder, "--format", format, "--out", tmp_path / "set") == 0
    assert splits_of(tmp_path / "set") == ["test", "train", "val", "train"]
    told = capsys.readouterr().err
    renamed = {"folders": 3}.get(format, 1)
    assert f"{renamed} item{'s were' if renamed > 1 else ' was'} renamed" in told
    assert run(["datasets", "check", str(tmp_path / "set")]) == 0
    assert "4 pairs" in capsys.readouterr().out


def test_splits_are_renamed_by_a_map(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = split_folder(tmp_path / "folds", "Fold1", "fold2", "默认")
    assert export(folder, "--format", "yolo", "--out", tmp_path / "set") == 1
    assert "--split-map 默认=test" in capsys.readouterr().err
    words = ["--split-map", "fold1=train,Fold2=Validation", "--split-map", "默认=test"]
    assert export(folder, "--format", "yolo", "--out", tmp_path / "set", *words) == 0
    assert sorted(splits_of(tmp_path / "set")) == ["test", "train", "val"]
    assert "which YOLO trainers need" not in capsys.readouterr().err
    assert "fold2 became val" in (tmp_path / "set" / "README.md").read_text()
    assert run(["datasets", "check", str(folder), *words]) == 0
    assert "test 1, train 1, val 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--split-map", "fold3=val"], 1, "'fold3', but no item is in that split; the splits are fold1, fold2"),
        (["--split-map", "fold1"], 2, "'fold1' is not of the form OLD=NEW"),
        (["--split-map", "fold1=A/B C!"], 2, "is not the name of a split"),
        (["--split-map", "fold1=val", "--split", "train=1"], 2, "give shares or a map, not both"),
    ],
)
def test_a_wrong_map_is_refused_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, says: str
) -> None:
    folder = split_folder(tmp_path / "folds", "fold1", "fold2")
    assert export(folder, "--format", "coco", "--out", tmp_path / "set", *words) == code
    assert says in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "set").exists()


def test_a_mask_is_never_that_of_a_namesake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "set"
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    for number, suffix in enumerate(("png", "bmp")):
        (folder / "images" / f"a.{suffix}").write_bytes(noise(number, 24, 24))
    (folder / "masks" / "a.png").write_bytes(png(twin_mask(0)))
    (folder / "dataset.json").write_text(listed(CLASSES))
    assert export(folder, "--format", "coco", "--out", tmp_path / "coco") == 1
    assert "could also be that of a.png" in capsys.readouterr().err
