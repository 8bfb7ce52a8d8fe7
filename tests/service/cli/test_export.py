"""Tests of ``twinset export``: contents, sources, and no partial output."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from service.cli.export import WRITTEN_FORMATS
from service.cli.http_client import ApiClient
from service.cli.root import run
from service.datasets.writing.options import Format
from tests.service.cli.conftest import LiveApi
from tests.service.cli.twin_folders import (
    CLASSES,
    real_folder,
    twin_folder,
    twin_mask,
)
from tests.service.datasets.scenes import digests, png


def export(*arguments: object) -> int:
    return run(["export", *map(str, arguments)])


def lines(folder: Path) -> list[dict[str, Any]]:
    """The lines of an export's manifest."""
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def test_the_commands_formats_are_those_of_the_writer() -> None:
    assert get_args(Format) == WRITTEN_FORMATS


@pytest.mark.parametrize("layout", ["objects", "shards"])
def test_twins_of_a_server_are_read_with_pycocotools(live_api: LiveApi, tmp_path: Path, layout: str) -> None:
    twins, out = tmp_path / "twins", tmp_path / "coco"
    asked = [
        "--model",
        "aerial",
        "--classes",
        "water",
        "--count",
        "3",
        "--seed",
        "5",
        "--layout",
        layout,
        "--url",
        live_api.url,
    ]
    assert run(["generate", *asked, "--out", str(twins)]) == 0
    assert json.loads((twins / "card.json").read_text())["name"] == "aerial"
    assert export(twins, "--format", "coco", "--out", out) == 0
    coco = COCO(str(out / "annotations" / "instances_train.json"))
    names = {entry["name"]: entry["id"] for entry in coco.loadCats(coco.getCatIds())}
    assert len(coco.getImgIds()) == 3
    for image, index in zip(coco.loadImgs(sorted(coco.getImgIds())), range(3), strict=True):
        with Image.open(twins / "masks" / f"{index:08d}.png") as file:
            truth = np.array(file)
        for number, name in enumerate(CLASSES[:3]):
            found = np.zeros(truth.shape, dtype=bool)
            for annotation in coco.loadAnns(coco.getAnnIds(imgIds=image["id"], catIds=names[name])):
                found |= coco.annToMask(annotation).astype(bool)
            assert np.array_equal(found, truth == number)
        assert (truth < 3).any()
    for line in lines(out):
        assert line["source"] == "synthetic"
        assert line["caption"] == "A photo of water"
        assert line["metadata"]["model"] == "aerial@1.0.0"
        assert line["metadata"]["parameters"]["steps"] == 10


def test_a_jobs_archive_gives_the_same_items_as_its_folder(live_api: LiveApi, tmp_path: Path) -> None:
    asked = ["--model", "aerial", "--prompt", "p", "--count", "2", "--url", live_api.url]
    assert run(["generate", *asked, "--out", str(tmp_path / "twins")]) == 0
    with ApiClient(live_api.url) as client:
        (tmp_path / "job.zip").write_bytes(client.fetch(f"/jobs/{live_api.worker.sent[0][0]}/archive"))
    for source, out in (("twins", "one"), ("job.zip", "two")):
        assert export(tmp_path / source, "--format", "folders", "--out", tmp_path / out, "--title", "Same") == 0
    assert len(lines(tmp_path / "one")) == 2
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_manifest_and_card_name_model_and_parameters(tmp_path: Path) -> None:
    out = tmp_path / "set"
    assert export(twin_folder(tmp_path / "twins"), "--format", "folders", "--out", out, "--title", "Shore") == 0
    assert [line["metadata"]["seed"] for line in lines(out)] == [100, 101, 102, 103]
    assert lines(out)[2]["metadata"]["scores"] == {"confident_share": 0.52, "mean_confidence": 0.8}
    card = (out / "README.md").read_text()
    assert card.startswith("# Shore\n")
    assert "4 synthetic, 0 real" in card
    assert "seeds of the jobs: 7" in card
    assert '"guidance_scale": 2.0' in card
    assert "model `aerial@1.0.0`: CC0-1.0" in card
    for index in range(4):
        with Image.open(out / "masks" / f"j1_{index:08d}.png") as file:
            assert np.array_equal(np.array(file), twin_mask(index))


def test_real_and_synthetic_items_are_mixed_by_class_names(tmp_path: Path) -> None:
    twins = twin_folder(tmp_path / "twins", count=2)
    real = real_folder(tmp_path / "tiles", ["Ground", "Water", "building", "vegetation"], order=[2, 1, 3, 0])
    out = tmp_path / "mixed"
    other = real_folder(tmp_path / "b" / "tiles", CLASSES, 2, seed=900)
    assert export(twins, real, other, "--format", "folders", "--out", out, "--rename", "Ground=unlabelled") == 0
    by_name = {line["name"]: line for line in lines(out)}
    assert sorted(by_name) == [
        "j1/00000000",
        "j1/00000001",
        "tiles-2/real0",
        "tiles-2/real1",
        "tiles/real0",
        "tiles/real1",
        "tiles/real2",
    ]
    assert [by_name[name]["source"] for name in sorted(by_name)] == ["synthetic"] * 2 + ["real"] * 5
    assert by_name["tiles/real0"]["split"] == "test"
    assert by_name["j1/00000000"]["split"] == "train"
    for name, number in (("tiles_real2", 2), ("tiles-2_real1", 1), ("j1_00000001", 1)):
        with Image.open(out / "masks" / f"{name}.png") as file:
            assert np.array_equal(np.array(file), twin_mask(number)), name
    listed = json.loads((out / "dataset.json").read_text())["classes"]
    assert [entry["name"] for entry in listed] == CLASSES
    assert listed[1]["colour"] == [0, 0, 255]
    assert "real images from Surveyed tiles: CC BY 4.0" in (out / "README.md").read_text()


def test_different_classes_are_refused_unless_common_ones_are_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twins = twin_folder(tmp_path / "twins", count=2)
    real = real_folder(tmp_path / "tiles", ["roof", "water", "vegetation", "unlabelled"])
    out = tmp_path / "mixed"
    assert export(twins, real, "--format", "folders", "--out", out) == 1
    said = capsys.readouterr().err
    assert "'tiles' lacks 'building' and also has 'roof'" in said
    assert "--rename A=B" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiles", "twins"]
    kept = ["--classes", "unlabelled,water", "--dropped", "unlabelled"]
    assert export(twins, real, "--format", "folders", "--out", out, *kept) == 0
    for name, number in (("j1_00000001", 1), ("tiles_real2", 2)):
        with Image.open(out / "masks" / f"{name}.png") as file:
            wanted = np.where(twin_mask(number) == 255, 255, (twin_mask(number) == 1).astype(np.uint8))
            assert np.array_equal(np.array(file), wanted)
    assert export(twins, "--format", "folders", "--out", tmp_path / "n", "--classes", "lava") == 1
    assert export(twins, "--format", "folders", "--out", tmp_path / "n", "--rename", "lava=water") == 1
    assert capsys.readouterr().err.count("which is not a class") == 2


def test_ignored_pixels_that_yolo_cannot_express_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twins = twin_folder(tmp_path / "twins", count=2)
    ignored = sum(int((twin_mask(number) == 255).sum()) for number in range(2))
    assert ignored
    assert export(twins, "--format", "yolo", "--out", tmp_path / "yolo") == 0
    assert f"Lost {ignored:,} ignored pixels, which yolo cannot express" in capsys.readouterr().err
    assert "to a trainer they are background" in (tmp_path / "yolo" / "README.md").read_text()
    assert export(twins, "--format", "coco", "--out", tmp_path / "coco") == 0
    assert "Lost" not in capsys.readouterr().err


def test_twins_stay_with_the_real_image_whose_mask_they_follow(tmp_path: Path) -> None:
    real = real_folder(tmp_path / "tiles", CLASSES, 6)
    sources: list[object] = [real]
    for number in range(6):
        upload = hashlib.sha256((real / "masks" / f"real{number}.png").read_bytes()).hexdigest()
        given = {"number": 0, "upload": upload, "sha256": "0" * 64}
        sources.append(twin_folder(tmp_path / f"t{number}", f"job{number}", 2, given_mask=given))
    out = tmp_path / "split"
    assert (
        export(*sources, "--format", "folders", "--out", out, "--split", "train=0.5,test=0.5", "--split-seed", "3") == 0
    )
    split = {line["name"]: line["split"] for line in lines(out)}
    assert set(split.values()) == {"train", "test"}
    assert len(split) == 18
    for number in range(6):
        assert {split[f"tiles/real{number}"]} == {split[f"job{number}/{index:08d}"] for index in range(2)}


def test_images_without_masks_are_skipped_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "set"
    assert export(twin_folder(tmp_path / "some", maskless=(0, 2)), "--format", "voc", "--out", out) == 1
    assert [line["metadata"]["index"] for line in lines(out)] == [1, 3]
    told = capsys.readouterr().err
    assert "Skipped 2 of some: 2 missing partner" in told
    assert "images/00000002.png" in told
    assert (
        export(twin_folder(tmp_path / "none", count=2, maskless=(0, 1)), "--format", "voc", "--out", tmp_path / "n")
        == 1
    )
    assert "no pair of an image and its mask was found in none" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["none", "set", "some"]


def test_an_image_in_two_sources_is_written_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    twins = twin_folder(tmp_path / "twins", count=3)
    assert export(twins, twins, "--format", "folders", "--out", tmp_path / "set") == 1
    assert len(lines(tmp_path / "set")) == 3
    told = capsys.readouterr().err
    assert "Skipped 3, same image" in told
    assert "j1/00000002" in told


@pytest.mark.parametrize("wanted", WRITTEN_FORMATS)
def test_folder_and_zip_have_the_same_files_in_every_format(wanted: str, tmp_path: Path) -> None:
    twins = twin_folder(tmp_path / "twins")
    title = ["--title", "Same", "--shard-size", "3", "--image-format", "jpeg"]
    assert export(twins, "--format", wanted, "--out", tmp_path / "set", *title) == 0
    assert export(twins, "--format", wanted, "--out", tmp_path / "set.zip", *title) == 0
    files = {
        path.relative_to(tmp_path / "set").as_posix(): path.read_bytes()
        for path in (tmp_path / "set").rglob("*")
        if path.is_file()
    }
    with zipfile.ZipFile(tmp_path / "set.zip") as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == files
    assert {"README.md", "manifest.jsonl"} < set(files)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set", "set.zip", "twins"]


def test_wrong_usage_and_existing_targets_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    twins, out = twin_folder(tmp_path / "twins"), tmp_path / "new"
    common = [twins, "--format", "coco", "--out"]
    (tmp_path / "there").mkdir()
    (tmp_path / "there.zip").write_bytes(b"mine")
    for taken in ("there", "there.zip", "no/such"):
        assert export(*common, tmp_path / taken) == 2
    assert (tmp_path / "there.zip").read_bytes() == b"mine"
    assert export(*common, tmp_path / "new.tar.gz") == 2
    assert not (tmp_path / "new.tar.gz").exists()
    splits = [["--split", text] for text in ("train", "train=0.8", "=1", "a=0.5,a=1")]
    for wrong in (*splits, ["--rename", "water"], ["--dropped", "water"], ["--format", "csv"]):
        assert export(*common, out, *wrong) == 2, wrong
    said = capsys.readouterr().err
    assert "exists already" in said
    assert "create it first" in said
    assert "add up to 1" in said
    assert "is not OLD=NEW" in said
    assert not out.exists()


def test_a_card_of_another_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(twin_folder(tmp_path / "t", model="other@1.0.0"), "--format", "coco", "--out", tmp_path / "o") == 1
    assert "card.json is the card of aerial@1.0.0, but the twins are of 'other@1.0.0'" in capsys.readouterr().err


def test_a_manifest_with_files_outside_its_folder_is_refused(tmp_path: Path) -> None:
    outside = tmp_path / "outside.png"
    outside.write_bytes(png(twin_mask(0)))
    key = {"key": "../../outside.png", "sha256": "0" * 64, "bytes": 1}
    assert (
        export(
            twin_folder(tmp_path / "t", count=1, image=key, job="../up"), "--format", "coco", "--out", tmp_path / "o"
        )
        == 1
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside.png", "t"]


@pytest.mark.parametrize("name", ["set", "set.zip"])
def test_ctrl_c_leaves_no_output(name: str, tmp_path: Path) -> None:
    twins = twin_folder(tmp_path / "twins", count=1500)
    arguments = ["export", str(twins), "--format", "folders", "--out", str(tmp_path / name)]
    process = subprocess.Popen(
        [sys.executable, "-m", "service.cli", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while not any(path.suffix == ".part" and any(path.glob("new*")) for path in tmp_path.iterdir()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130, said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["twins"]
