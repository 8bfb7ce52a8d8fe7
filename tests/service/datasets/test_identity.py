"""An item is its path in the dataset: masks never go to a namesake in another folder, and no item is lost for one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from service.datasets.items import DatasetItem
from service.datasets.reading.checking import read_items
from service.datasets.reading.opening import open_dataset
from service.datasets.reading.report import Findings, ReadReport
from service.datasets.writing.options import Format
from tests.service.datasets.hand_written import RAW, SQUARE, TWO, faults, listed, write
from tests.service.datasets.scenes import export, noise, png

CLASSES = {"dataset.json": listed(["background", "cell"])}
LABELMAP = "".join(f"{name}:{','.join(map(str, colour))}::\n" for name, colour in RAW.items())


def read_all(folder: Path) -> tuple[dict[str, DatasetItem], ReadReport]:
    """The items by their paths."""
    source, findings = open_dataset(folder), Findings()
    items = list(read_items(source, findings))
    assert len({item.path for item in items}) == len(items)
    return {str(item.path): item for item in items}, findings.report(source.format)


def mask(number: int) -> np.ndarray:
    """A mask that tells its number."""
    labels = np.zeros_like(SQUARE)
    labels[0, : number + 1] = 1
    return labels


def check_masks(items: dict[str, DatasetItem], wanted: dict[str, int]) -> None:
    assert sorted(items) == sorted(wanted)
    for path, number in wanted.items():
        assert np.array_equal(items[path].labels, mask(number)), path


def test_voc_pairs_by_folder_and_not_by_name(tmp_path: Path) -> None:
    images = [f"video{video}/frame_{frame}" for video in (1, 2) for frame in (0, 1)]
    for number, name in enumerate(images):
        write(
            tmp_path,
            **{
                f"JPEGImages/{name}.png": noise(number, *SQUARE.shape),
                f"SegmentationClass/{name}.png": png(mask(number)),
                f"SegmentationObject/{name}.png": png(mask(number)),
            },
        )
    write(tmp_path, **{"JPEGImages/frame_0.png": noise(9, *SQUARE.shape), "labelmap.txt": LABELMAP})
    write(tmp_path, **{"ImageSets/Segmentation/val.txt": "video2/frame_0\nvideo2/frame_1\n"})
    items, report = read_all(tmp_path)
    check_masks(items, {f"JPEGImages/{name}.png": number for number, name in enumerate(images)})
    assert report.splits == {"": 2, "val": 2}
    assert report.clean


@pytest.mark.parametrize(
    "line", ["b.jpg", "b 1", "b  -1", "JPEGImages/b.jpg", "/JPEGImages/b.jpg /SegmentationClass/b.png", "./b"]
)
def test_a_line_of_vocs_lists_may_have_a_suffix_a_folder_or_a_number(tmp_path: Path, line: str) -> None:
    files = {"JPEGImages/b.jpg": noise(1, *SQUARE.shape), "SegmentationClass/b.png": png(SQUARE)}
    write(tmp_path, **files, **{"labelmap.txt": LABELMAP, "ImageSets/Segmentation/val.txt": f"{line}\n"})
    _, report = read_all(tmp_path)
    assert (report.splits, report.clean) == ({"val": 1}, True)


def test_a_line_of_vocs_lists_that_names_nothing_is_reported(tmp_path: Path) -> None:
    files = {"JPEGImages/b.jpg": noise(1, *SQUARE.shape), "SegmentationClass/b.png": png(SQUARE)}
    more = {"JPEGImages/c.jpg": noise(2, *SQUARE.shape), "ImageSets/Segmentation/val.txt": "a 1\nb 1\nc 1\n"}
    write(tmp_path, **files, **more, **{"labelmap.txt": LABELMAP})
    _, report = read_all(tmp_path)
    assert (report.items, report.skipped) == (1, 2)
    assert faults(report) == {"missing_partner": ["a 1", "JPEGImages/c.jpg"]}


def test_images_of_one_stem_each_have_the_mask_of_their_whole_name_or_of_their_suffix(tmp_path: Path) -> None:
    images = {f"images/{name}": noise(number, *SQUARE.shape) for number, name in enumerate(("a.jpg", "a.png", "b.jpg"))}
    masks = {"masks/a.jpg.png": png(mask(0)), "masks/a.png.png": png(mask(1)), "masks/b.png": png(mask(2))}
    items, report = read_all(write(tmp_path / "names", **images, **masks, **CLASSES))
    check_masks(items, {"images/a.jpg": 0, "images/a.png": 1, "images/b.jpg": 2})
    assert report.clean
    images = {f"images/a.{suffix}": noise(number, *SQUARE.shape) for number, suffix in enumerate(("bmp", "png"))}
    masks = {"masks/a.bmp": png(mask(0)), "masks/a.png": png(mask(1))}
    check_masks(
        read_all(write(tmp_path / "suffixes", **images, **masks, **CLASSES))[0], {"images/a.bmp": 0, "images/a.png": 1}
    )


def test_a_mask_that_could_be_of_two_images_is_of_none_and_its_remedy_works(tmp_path: Path) -> None:
    images = {f"images/a.{suffix}": noise(number, *SQUARE.shape) for number, suffix in enumerate(("jpg", "png"))}
    write(tmp_path, **images, **{"masks/a.png": png(mask(0))}, **CLASSES)
    items, report = read_all(tmp_path)
    assert not items
    assert faults(report) == {"missing_partner": ["images/a.jpg", "images/a.png"]}
    assert "call the mask a.jpg.png if it is this image's" in report.faults[0].first[0].detail
    (tmp_path / "masks/a.png").rename(tmp_path / "masks/a.jpg.png")
    (tmp_path / "images/a.png").unlink()
    items, report = read_all(tmp_path)
    check_masks(items, {"images/a.jpg": 0})
    assert report.clean


def test_two_masks_for_one_image_are_reported_and_neither_is_taken(tmp_path: Path) -> None:
    masks = {"masks/a.png": png(mask(0)), "masks/a.bmp": png(mask(1))}
    write(tmp_path, **{"images/a.jpg": noise(1, *SQUARE.shape)}, **masks, **CLASSES)
    items, report = read_all(tmp_path)
    assert not items
    assert "its mask could be any of a.bmp, a.png" in report.faults[0].first[0].detail


def test_a_list_or_caption_of_a_stem_is_not_of_a_namesake_in_another_splits_folder(tmp_path: Path) -> None:
    for number, split in enumerate(("Train", "Validation")):
        write(
            tmp_path,
            **{f"{split}/images/a.png": noise(number, *SQUARE.shape), f"{split}/masks/a.png": png(mask(number))},
        )
    write(tmp_path, **{"train.txt": "a\n", "captions.jsonl": json.dumps({"stem": "a", "text": "?"}) + "\n"}, **CLASSES)
    items, report = read_all(tmp_path)
    check_masks(items, {"Train/images/a.png": 0, "Validation/images/a.png": 1})
    assert report.splits == {"train": 1, "val": 1}
    assert {item.caption for item in items.values()} == {None}


@pytest.mark.parametrize("format", ["folders", "coco", "voc", "cityscapes", "yolo", "huggingface", "webdataset"])
def test_namesakes_come_back_with_their_own_masks_splits_and_origin(tmp_path: Path, format: Format) -> None:
    namesakes = [
        DatasetItem("a", noise(0, *SQUARE.shape), mask(0), split="train", path="train/a.png"),
        DatasetItem("a", noise(1, *SQUARE.shape), mask(1), split="val", path="valid/a.png", metadata={"seed": 1}),
        DatasetItem("A", noise(2, *SQUARE.shape), mask(2), split="val", path="valid/A.jpg", source="synthetic"),
        DatasetItem("a", noise(3, *SQUARE.shape), mask(3), split="train", path="train/a.jpg"),
    ]
    items, report = read_all(export(namesakes, TWO, tmp_path / "set", format=format))
    assert report.clean
    found = {item.image: item for item in items.values()}
    assert len(found) == 4
    for item in namesakes:
        assert np.array_equal(found[item.image].labels, item.labels)
        assert (found[item.image].split, found[item.image].source) == (item.split, item.source)
        assert found[item.image].metadata == item.metadata


def test_of_more_masks_than_images_of_one_stem_none_is_taken(tmp_path: Path) -> None:
    images = {f"images/a.{kind}": noise(number, *SQUARE.shape) for number, kind in enumerate(("png", "bmp"))}
    masks = {f"masks/a.{kind}": png(mask(number)) for number, kind in enumerate(("PNG", "bmp", "png"))}
    items, report = read_all(write(tmp_path, **images, **masks, **{"classes.txt": "background\ncell\n"}))
    assert items == {}
    assert faults(report) == {"missing_partner": ["images/a.bmp", "images/a.png"]}
