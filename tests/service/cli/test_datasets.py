"""Tests of ``twinset datasets``: the report, its exit codes, and statistics compared with NumPy."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.cli.root import run
from service.cli.sources import READ_FORMATS
from service.datasets.reading import opening
from tests.service.cli.twin_folders import (
    CLASSES,
    real_folder,
    twin_folder,
    twin_mask,
)
from tests.service.datasets.scenes import export
from tests.service.datasets.test_instance_maps import CLASSES as INSTANCE_CLASSES
from tests.service.datasets.test_instance_maps import item


def test_the_commands_formats_are_those_of_the_reader() -> None:
    assert READ_FORMATS == opening.READ_FORMATS


def test_a_clean_dataset_is_named_and_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = real_folder(tmp_path / "tiles", CLASSES)
    assert run(["datasets", "check", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "folders, 3 pairs" in said
    assert "test 1" in said
    assert "vegetation" in said
    assert "✓ All" in said


def test_every_faulty_file_is_named_and_the_exit_code_is_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = real_folder(tmp_path / "tiles", CLASSES, 4)
    (folder / "images" / "real0.png").write_bytes(b"no picture")
    (folder / "masks" / "real1.png").unlink()
    Image.fromarray(np.zeros((9, 9), dtype=np.uint8)).save(folder / "masks" / "real2.png")
    assert run(["datasets", "check", str(folder), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["format"], report["items"], report["skipped"], report["clean"]) == ("folders", 1, 3, False)
    found = {group["kind"]: group["first"][0]["file"] for group in report["faults"] if group["skipped"]}
    assert found == {
        "unreadable": "images/real0.png",
        "missing_partner": "images/real1.png",
        "size_differs": "images/real2.png",
    }
    assert run(["datasets", "check", str(folder)]) == 1
    said = capsys.readouterr().out
    assert "images/real0.png" in said
    assert "images/real1.png" in said
    assert "3 skipped" in said


def test_control_characters_in_names_are_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = real_folder(tmp_path / "tiles", [*CLASSES[:-1], "red\x1b[31m\u202e"])
    (folder / "images" / "real0.png").rename(folder / "images" / "\x1b]0;title\x07.png")
    for words in (["datasets", "check", str(folder)], ["datasets", "stats", str(folder)]):
        run(words)
        told = capsys.readouterr()
        said = told.out + told.err
        assert r"red\x1b[31m\u202e" in said
        assert not any(letter in said for letter in "\x1b\x07\u202e")
    run(["datasets", "check", str(folder)])
    assert r"images/\x1b]0;title\x07.png" in capsys.readouterr().out


def test_an_archive_is_read_like_its_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = real_folder(tmp_path / "tiles", CLASSES)
    with zipfile.ZipFile(tmp_path / "tiles.zip", "w") as archive:
        for path in sorted(folder.rglob("*.*")):
            archive.write(path, Path("inside") / path.relative_to(folder))
    assert run(["datasets", "check", str(tmp_path / "tiles.zip"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["splits"] == {"": 2, "test": 1}
    (tmp_path / "no.zip").write_bytes(b"not an archive")
    assert run(["datasets", "check", str(tmp_path / "no.zip")]) == 1
    assert "The archive cannot be unpacked" in capsys.readouterr().err


def test_twins_are_checked_against_the_hashes_of_their_manifest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = twin_folder(tmp_path / "twins", maskless=(2,))
    Image.fromarray(twin_mask(5)).save(folder / "masks" / "00000001.png")
    assert run(["datasets", "check", str(folder), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["format"], report["items"]) == ("twins", 2)
    assert {group["kind"]: group["first"][0]["file"] for group in report["faults"]} == {
        "damaged": "images/00000001.png",
        "missing_partner": "images/00000002.png",
    }
    assert [entry["name"] for entry in report["classes"] if entry["background"]] == ["unlabelled"]


def test_a_folder_that_is_not_a_dataset_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    assert run(["datasets", "check", str(tmp_path)]) == 1
    assert "A dataset is one of: folders" in capsys.readouterr().err
    twin_folder(tmp_path / "twins", with_card=False)
    assert run(["datasets", "stats", str(tmp_path / "twins")]) == 1
    assert "twinset models show aerial@1.0.0 --json > card.json" in capsys.readouterr().err


def test_shares_and_cooccurrence_equal_numpys_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, picture = twin_folder(tmp_path / "twins", count=5), tmp_path / "stats.png"
    masks = np.stack([twin_mask(number) for number in range(5)])
    assert run(["datasets", "stats", str(folder), "--json", "--chart", str(picture)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["images"] == 5
    for index, entry in enumerate(found["classes"]):
        assert entry["pixels"] == int((masks == index).sum())
        assert entry["pixel_share"] == pytest.approx((masks == index).sum() / (masks != 255).sum())
        assert entry["images"] == int((masks == index).any(axis=(1, 2)).sum())
    assert found["cooccurrence"][0] == [None] * 4
    assert found["cooccurrence"][1] == [0.0, 1.0, 1.0, 1.0]
    with Image.open(picture) as drawn:
        assert drawn.format == "PNG"
        assert drawn.width > 800
    assert run(["datasets", "stats", str(folder)]) == 0
    said = capsys.readouterr().out
    share = (masks == 1).sum() / (masks != 255).sum()
    assert "5 images: 5 of 24 x 24" in said
    assert f"{share:.1%}" in said


def test_objects_are_counted_by_their_maps_and_it_is_said_which(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = export([item()], INSTANCE_CLASSES, tmp_path, format="folders")
    assert run(["datasets", "stats", str(folder), "--json"]) == 0
    assert [one["objects"] for one in json.loads(capsys.readouterr().out)["classes"]] == [0, 3, 1]
    for command in ("check", "stats"):
        assert run(["datasets", command, str(folder)]) == 0
        assert "objects: by instance maps\n" in capsys.readouterr().out
    (folder / "instances/a.png").unlink()
    assert run(["datasets", "stats", str(folder), "--json"]) == 0
    assert [one["objects"] for one in json.loads(capsys.readouterr().out)["classes"]] == [0, 1, 1]
    for command in ("check", "stats"):
        assert run(["datasets", command, str(folder)]) == 0
        assert "objects: by connected regions\n" in capsys.readouterr().out


def test_a_chart_must_be_a_png_in_an_existing_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = twin_folder(tmp_path / "twins", count=1)
    for wrong in ("stats.jpg", "nowhere/stats.png"):
        assert run(["datasets", "stats", str(folder), "--chart", str(tmp_path / wrong)]) == 2
        assert "must be a *.png in a folder that exists" in capsys.readouterr().err
