"""Tests of ``twinset generate`` with masks: uploads of files and folders, and errors by file."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.cli.http_client import ApiClient
from service.cli.root import run
from service.jobs.repository import JobRepository
from service.kit.png import encode_grey_16
from service.store import keys
from tests.service.cli.conftest import LiveApi
from tests.service.masks.support import painted, pillow_file, stripes


def write_mask(path: Path, index: int) -> Path:
    """A mask that is all of one class."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pillow_file(np.full((64, 64), index, dtype=np.uint8)))
    return path


def generate(api: LiveApi, out: Path, *arguments: object) -> int:
    return run(["generate", "--model", "tissue", "--out", str(out), "--url", api.url, *map(str, arguments)])


def job_of(api: LiveApi) -> dict[str, object]:
    with ApiClient(api.url) as client:
        return client.job(api.worker.sent[0][0])


def given_classes(api: LiveApi) -> list[int]:
    """The one class of each mask that the job was given, in order."""
    job = api.worker.sent[0][0]
    stored = [api.store.get(info.key) for info in api.store.list(f"jobs/{job}/inputs/")]
    return [int(np.asarray(Image.open(io.BytesIO(data)))[0, 0]) for data in stored]


def test_a_mask_file_is_used_for_all_requested_twins(
    live_api: LiveApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask, out = tmp_path / "mask.png", tmp_path / "twins"
    mask.write_bytes(pillow_file(painted(stripes(64))))
    options = ["--prompt", "glands", "--mask-encoding", "colours", "--guidance-target", "joint", "--count", "3"]
    assert generate(live_api, out, "--mask", mask, *options) == 0
    upload = hashlib.sha256(mask.read_bytes()).hexdigest()
    assert live_api.store.get(keys.upload("default", upload)) == mask.read_bytes()
    parameters = job_of(live_api)["parameters"]
    assert isinstance(parameters, dict)
    wanted = {
        "prompt": "glands",
        "mask": [{"upload": upload}],
        "mask_encoding": "colours",
        "guidance_target": "joint",
        "count": 3,
    }
    assert parameters.items() >= wanted.items()
    assert len(list((out / "images").iterdir())) == len(list((out / "masks").iterdir())) == 3
    assert json.loads((out / "manifest.jsonl").read_text().splitlines()[2])["given_mask"]["upload"] == upload
    assert "3 twins in" in capsys.readouterr().out
    with Image.open(out / "contact_sheet.png") as sheet:
        assert sheet.width > 700


def test_masks_keep_the_order_of_arguments_and_names_in_folders(live_api: LiveApi, tmp_path: Path) -> None:
    last = write_mask(tmp_path / "z.png", 3)
    write_mask(tmp_path / "folder" / "b.PNG", 2)
    write_mask(tmp_path / "folder" / "a.png", 1)
    (tmp_path / "folder" / "notes.txt").write_text("no mask")
    first = write_mask(tmp_path / "first.png", 0)
    assert generate(live_api, tmp_path / "twins", "--mask", first, "--mask", tmp_path / "folder", "--mask", last) == 0
    assert given_classes(live_api) == [0, 1, 2, 3]
    assert job_of(live_api)["total"] == 4


def test_a_file_that_is_not_a_png_is_named_and_no_job_submitted(
    live_api: LiveApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = write_mask(tmp_path / "good.png", 0), tmp_path / "photo.png"
    bad.write_bytes(pillow_file(painted(stripes(64)), "JPEG"))
    assert generate(live_api, tmp_path / "twins", "--mask", good, "--mask", bad) == 1
    assert f"{bad}: the file is not a PNG: it looks like a JPEG" in capsys.readouterr().err.replace("\n", " ")
    assert live_api.worker.sent == []
    assert not (tmp_path / "twins").exists()


def test_a_refused_mask_is_reported_with_its_file_name(
    live_api: LiveApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_mask(tmp_path / "folder" / "a.png", 0)
    bad = write_mask(tmp_path / "folder" / "b.png", 9)
    assert generate(live_api, tmp_path / "twins", "--mask", tmp_path / "folder") == 1
    error = capsys.readouterr().err
    assert f"{bad}: mask[1] has labels that the model does not know: 9; tissue@1.0.0 has classes 0 to 3" in error
    assert error.count("does not know") == 1


def test_rectangles_are_drawn_as_canvases(live_api: LiveApi, tmp_path: Path) -> None:
    mask = tmp_path / "wide.png"
    mask.write_bytes(pillow_file(stripes(128)[:96].copy()))
    windows = ["--overlap", "16", "--window", "64", "--window-weights", "uniform"]
    assert generate(live_api, tmp_path / "twins", "--mask", mask, "--fit", "canvas", *windows) == 0
    parameters = job_of(live_api)["parameters"]
    assert isinstance(parameters, dict)
    assert (parameters["fit"], parameters["size"]) == ("canvas", None)
    assert parameters["canvas"] == {"window_px": 64, "overlap_px": 16, "weights": "uniform"}


def test_a_size_may_be_a_rectangle_and_no_other_words(
    live_api: LiveApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--prompt", "glands", "--count", "1", "--fit", "stretch", "--size"]
    assert generate(live_api, tmp_path / "twins", *options, "854x480") == 0
    assert job_of(live_api)["parameters"]["size"] == "854x480"  # type: ignore[index]
    assert generate(live_api, tmp_path / "others", *options, "wide") == 2
    assert "'wide' is no size; give pixels, as 256, or WIDTHxHEIGHT, as 854x480." in capsys.readouterr().err


def test_images_without_masks_are_downloaded(
    live_api: LiveApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    live_api.worker.with_masks = False
    out = tmp_path / "images"
    assert generate(live_api, out, "--prompt", "glands", "--count", "2") == 0
    assert sorted(path.name for path in out.iterdir()) == ["card.json", "contact_sheet.png", "images", "manifest.jsonl"]
    assert len(list((out / "images").iterdir())) == 2
    text = capsys.readouterr().out
    assert "2 images in" in text
    assert "images, manifest.jsonl" in text


def test_classes_and_masks_cannot_be_combined(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mask = write_mask(tmp_path / "mask.png", 0)
    common = ["generate", "--model", "m", "--url", "http://127.0.0.1:1", "--out", str(tmp_path / "new")]
    assert run([*common, "--mask", str(mask), "--classes", "water"]) == 2
    assert "--classes cannot be combined" in capsys.readouterr().err
    assert run([*common, "--mask", str(mask), "--mask-encoding", "rgb"]) == 2
    assert "colours" in capsys.readouterr().err


def test_instance_maps_go_with_masks_in_their_order(
    live_api: LiveApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = [write_mask(tmp_path / f"{number}.png", number) for number in (1, 2)]
    maps = tmp_path / "maps"
    maps.mkdir()
    for number in range(2):
        (maps / f"{number}.png").write_bytes(encode_grey_16(np.full((64, 64), 300 + number)))
    options = [argument for mask in masks for argument in ("--mask", mask)]
    assert generate(live_api, tmp_path / "a", *options, "--instances", maps / "1.png") == 2
    assert "--instances names 1 files and --mask 2; give one for each mask" in capsys.readouterr().err
    assert generate(live_api, tmp_path / "b", *options, "--instances", maps) == 0
    spec = JobRepository(live_api.store).read_spec(live_api.worker.sent[0][0])
    stored = [live_api.store.get(spec.instances_key(number)) for number in range(2)]
    assert [int(np.asarray(Image.open(io.BytesIO(data)))[0, 0]) for data in stored] == [300, 301]
    (maps / "0.png").write_bytes(encode_grey_16(np.ones((32, 64))))
    assert generate(live_api, tmp_path / "c", *options, "--instances", maps) == 1
    assert f"{maps / '0.png'}: instances[0] is 64 x 32 px" in " ".join(capsys.readouterr().err.split())


def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_sent(
    live_api: LiveApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask, file = write_mask(tmp_path / "mask.png", 1), tmp_path / "file"
    file.write_text("no folder")
    assert generate(live_api, file / "twins", "--mask", mask) == 2
    assert f"cannot be made: {file} is a file; name a folder elsewhere" in " ".join(capsys.readouterr().err.split())
    assert live_api.worker.sent == []
