"""What a reader does not take, or takes in another way than it is written, is in its report: no item is lost unsaid."""

from __future__ import annotations

import io
import json
import os
import tarfile
import unicodedata
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.datasets.classes import ClassList
from service.datasets.matching import ClassMatching
from service.datasets.reading.unpacking import unpack
from service.errors import InvalidDataset
from tests.service.datasets.hand_written import SQUARE, faults, listed, write
from tests.service.datasets.scenes import noise, png, read

TWO = listed(["background", "cell"])
MASK = png(SQUARE)
CLASSES = "background\ncell\n"
OUTLINE = "0 0.25 0.2 0.75 0.2 0.75 0.6 0.25 0.6\n"


def details(report: Any, kind: str) -> list[str]:
    return [finding.detail for group in report.faults if group.kind == kind for finding in group.first]


def pairs(*names: str, at: str = "") -> dict[str, bytes]:
    """Images and masks of these names, and no two images alike."""
    found: dict[str, bytes] = {}
    for name in names:
        found[f"{at}images/{name}.png"] = noise(sum(f"{at}{name}".encode()), 10, 12)
        found[f"{at}masks/{name}.png"] = MASK
    return found


def tar(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as out:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))


def coco(name: str) -> str:
    image = {"id": 1, "file_name": name, "width": 12, "height": 10}
    outline = [[3.0, 2.0, 9.0, 2.0, 9.0, 6.0, 3.0, 6.0]]
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": outline}
    return json.dumps({"images": [image], "annotations": [annotation], "categories": [{"id": 1, "name": "cell"}]})


def test_folders_beside_those_of_splits_are_splits_too(tmp_path: Path) -> None:
    write(tmp_path, **pairs("a", at="train/"), **pairs("a", at="fold 2/"), **pairs("a", at="extra/"))
    write(tmp_path, **{"dataset.json": TWO})
    _, report, _ = read(tmp_path)
    assert (report.splits, report.clean) == ({"extra": 1, "fold_2": 1, "train": 1}, True)
    # hidden folders are no splits
    write(tmp_path, **pairs("b", at=".cache/"))
    assert read(tmp_path)[1].items == 3


@pytest.mark.parametrize(
    "line", ["/home/x/set/images/{}.png", "D:\\set\\images\\{}.png", "./images/{}.png", "{}", "{}.png"]
)
def test_split_lists_of_another_machine_are_read(tmp_path: Path, line: str) -> None:
    write(tmp_path, **pairs("a", "b"), **{"dataset.json": TWO})
    write(tmp_path, **{"train.txt": line.format("a") + "\r\n", "val.txt": "\ufeff" + line.format("b") + "\r\n"})
    items, report, _ = read(tmp_path)
    assert report.clean
    assert {name: item.split for name, item in items.items()} == {"a": "train", "b": "val"}


def test_lines_of_split_lists_that_name_no_image_are_reported(tmp_path: Path) -> None:
    write(tmp_path, **pairs("a", "b"), **{"dataset.json": TWO, "train.txt": "a\n", "val.txt": "bb\n"})
    _, report, _ = read(tmp_path)
    assert faults(report) == {"missing_partner": ["bb"]}
    assert details(report, "missing_partner") == ["val.txt lists it, but there is no such image; correct its name"]
    (tmp_path / "val.txt").write_text("b\n")
    assert read(tmp_path)[1].clean
    # an image that is listed, but has no mask, is reported once, as that
    (tmp_path / "masks/b.png").unlink()
    assert faults(read(tmp_path)[1]) == {"missing_partner": ["images/b.png"]}


def test_an_image_in_the_lists_of_two_splits_is_named(tmp_path: Path) -> None:
    write(tmp_path / "folders", **pairs("a", "b"), **{"dataset.json": TWO, "train.txt": "a\nb\n", "val.txt": "b\n"})
    images = {f"JPEGImages/{name}.png": noise(number, 10, 12) for number, name in enumerate("ab")}
    masks = dict.fromkeys(("SegmentationClass/a.png", "SegmentationClass/b.png"), MASK)
    lists = {"ImageSets/Segmentation/train.txt": "a\nb\n", "ImageSets/Segmentation/val.txt": "b\n"}
    labels = "background:0,0,0::\ncell:250,10,10::\n"
    write(tmp_path / "voc", **images, **masks, **lists, **{"labelmap.txt": labels})
    for format in ("folders", "voc"):
        _, report, _ = read(tmp_path / format)
        assert report.splits == {"train": 2}
        assert details(report, "assumed") == [
            "1 image that it lists is listed for train too, such as b, and read as train, not as val"
        ]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_captions_are_found_in_any_normal_form(tmp_path: Path, form: Any) -> None:
    caption = json.dumps({"stem": unicodedata.normalize(form, "Zähler"), "text": "two cells"})
    write(tmp_path, **pairs("Zähler"), **{"dataset.json": TWO, "captions.jsonl": caption})
    assert read(tmp_path)[0]["Zähler"].caption == "two cells"


@pytest.mark.parametrize("first", [0, 1])
def test_a_list_of_classes_without_the_background_is_refused(tmp_path: Path, first: int) -> None:
    masks = [png(first + SQUARE * number) for number in (0, 1, 2 - first)]
    images = {f"images/{number}.png": noise(number, 10, 12) for number in range(3)}
    write(tmp_path, **images, **{f"masks/{number}.png": mask for number, mask in enumerate(masks)})
    write(tmp_path, **{"classes.txt": "cell\ndebris\n"})
    with pytest.raises(InvalidDataset, match=r"but 2 classes are listed, for 0 to 1 .* list it too, before them"):
        read(tmp_path)
    (tmp_path / "classes.txt").write_text("background\ncell\ndebris\n")
    items, report, _ = read(tmp_path)
    assert report.clean
    assert np.array_equal(items["1"].labels, first + SQUARE)


def test_members_of_shards_under_unknown_names_are_reported(tmp_path: Path) -> None:
    write(tmp_path, **{"classes.txt": CLASSES})
    tar(tmp_path / "train-000000.tar", {"0.png": noise(1, 10, 12), "0.seg.png": MASK, "1.photo.png": noise(2, 10, 12)})
    _, report, _ = read(tmp_path)
    assert faults(report) == {"missing_partner": ["train-000000.tar/1.photo.png"]}
    assert "called 1.png or 1.jpg; there are 1.photo.png" in details(report, "missing_partner")[0]


def test_tars_and_parquet_files_that_are_not_read_are_reported(tmp_path: Path) -> None:
    shard = {"0.png": noise(1, 10, 12), "0.seg.png": MASK}
    write(tmp_path / "tars", **{"classes.txt": CLASSES})
    tar(tmp_path / "tars/train-000000.tar", shard)
    tar(tmp_path / "tars/extra.tar", {"1.png": noise(2, 10, 12), "1.seg.png": MASK})
    _, report, _ = read(tmp_path / "tars")
    assert faults(report) == {"unreadable": ["extra.tar"]}
    assert "call it extra-000000.tar" in details(report, "unreadable")[0]
    (tmp_path / "tars/extra.tar").rename(tmp_path / "tars/extra-000000.tar")
    assert read(tmp_path / "tars")[1].splits == {"extra": 1, "train": 1}

    write(tmp_path / "hub", **{"classes.txt": CLASSES})
    for number, place in enumerate(("data/train-00000-of-00001.parquet", "more/test-00000-of-00001.parquet")):
        (tmp_path / "hub" / place).parent.mkdir(exist_ok=True)
        # paths that are all missing have no type
        image, mask = ([{"bytes": data, "path": None}] for data in (noise(number, 10, 12), MASK))
        pq.write_table(pa.table({"image": image, "mask": mask}), tmp_path / "hub" / place)
    _, report, _ = read(tmp_path / "hub")
    assert (report.splits, faults(report)) == ({"train": 1}, {"unreadable": ["more/test-00000-of-00001.parquet"]})
    assert details(report, "unreadable")[0].endswith("than data/train-00000-of-00001.parquet; move it there")
    (tmp_path / "hub/more/test-00000-of-00001.parquet").rename(tmp_path / "hub/data/test-00000-of-00001.parquet")
    assert read(tmp_path / "hub")[1].splits == {"test": 1, "train": 1}


def test_links_that_are_not_followed_are_reported(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", **pairs("b", "c"))
    root = write(tmp_path / "set", **pairs("a"), **{"dataset.json": TWO})
    for name in ("images/b.png", "masks/b.png"):
        os.symlink(tmp_path / "elsewhere" / name, root / name)
    os.symlink(tmp_path / "elsewhere", root / "more")
    os.symlink(tmp_path / "elsewhere", root / ".hidden")
    items, report, _ = read(root)
    assert list(items) == ["a"]
    assert faults(report) == {"unreadable": ["images/b.png", "masks/b.png", "more"]}


def test_a_folder_of_links_says_what_to_do(tmp_path: Path) -> None:
    write(tmp_path / "blobs", **{"one": b"PAR1", "classes.txt": CLASSES})
    (tmp_path / "set").mkdir()
    os.symlink(tmp_path / "blobs", tmp_path / "set/data")
    (tmp_path / "set/readme").write_text("")
    with pytest.raises(
        InvalidDataset, match=r"[Ii]t has links, which are not followed: copy it with .* \(cp -rL FROM TO\)"
    ):
        read(tmp_path / "set")


def test_images_of_cityscapes_without_the_ending_are_reported(tmp_path: Path) -> None:
    root = "leftImg8bit/train/city"
    write(tmp_path, **{f"{root}/a_leftImg8bit.png": noise(1, 10, 12), f"{root}/b.png": noise(2, 10, 12)})
    write(
        tmp_path,
        **{"gtFine/train/city/a_gtFine_labelIds.png": MASK, "label_colors.txt": "0 0 0 background\n9 9 9 cell\n"},
    )
    _, report, _ = read(tmp_path)
    assert (report.items, faults(report)) == (1, {"missing_partner": [f"{root}/b.png"]})


def test_json_of_other_encodings_is_read(tmp_path: Path) -> None:
    images = {f"images/{name}.png": noise(number, 10, 12) for number, name in enumerate("abc")}
    files = {
        "annotations/train.json": b"\xef\xbb\xbf" + coco("a.png").encode(),
        "annotations/val.json": coco("b.png").encode("utf-16"),
        "annotations/test.json": coco("c.png").encode("utf-32"),
    }
    _, report, _ = read(write(tmp_path, **images, **files))
    assert (report.splits, report.clean) == ({"test": 1, "train": 1, "val": 1}, True)


def test_a_coco_file_that_is_cut_off_is_reported(tmp_path: Path) -> None:
    images = {"images/a.png": noise(1, 10, 12), "images/b.png": noise(2, 10, 12)}
    cut = coco("b.png").partition('"categories"')[0]
    write(tmp_path, **images, **{"annotations/train.json": coco("a.png"), "annotations/val.json": cut})
    write(tmp_path, **{"annotations/captions_val.json": json.dumps({"images": [], "annotations": []})})
    _, report, _ = read(tmp_path)
    assert (report.splits, faults(report)) == ({"train": 1}, {"damaged": ["annotations/val.json"]})


def test_a_coco_file_in_a_folder_of_annotations_is_reported(tmp_path: Path) -> None:
    images = {"images/a.png": noise(1, 10, 12), "images/b.png": noise(2, 10, 12)}
    write(tmp_path, **images, **{"annotations/train.json": coco("a.png"), "annotations/new/val.json": coco("b.png")})
    _, report, _ = read(tmp_path)
    assert (report.splits, faults(report)) == ({"train": 1}, {"unreadable": ["annotations/new/val.json"]})
    (tmp_path / "annotations/new/val.json").rename(tmp_path / "annotations/val.json")
    assert read(tmp_path)[1].splits == {"train": 1, "val": 1}


def test_label_files_in_upper_case_are_read(tmp_path: Path) -> None:
    write(tmp_path, **{"data.yaml": "train: images\nval: images\nnames: [cell]\n"})
    write(tmp_path, **{"images/a.JPG": noise(1, 10, 12), "labels/a.TXT": OUTLINE, "images/b.PNG": noise(2, 10, 12)})
    write(tmp_path, **{"labels/b.txt": ""})
    items, report, _ = read(tmp_path)
    assert report.clean
    assert items["a"].labels.any()


def test_folders_of_a_zip_made_on_windows_are_folders(tmp_path: Path) -> None:
    files = {"set\\": b"", "set\\images\\": b"", "set\\images\\a.png": noise(1, 10, 12), "set\\masks\\a.png": MASK}
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as out:
        for name, data in {**files, "set\\classes.txt": CLASSES.encode()}.items():
            info = zipfile.ZipInfo("x")
            info.filename = name
            out.writestr(info, data)
    unpack(tmp_path / "set.zip", tmp_path / "out")
    items, report, _ = read(tmp_path / "out")
    assert (list(items), report.clean) == (["a"], True)


def test_voc_s_lists_of_all_tasks_are_read_where_there_are_none_of_segmentation(tmp_path: Path) -> None:
    images = {f"JPEGImages/{name}.png": noise(number, 10, 12) for number, name in enumerate("abc")}
    masks = dict.fromkeys(("SegmentationClass/a.png", "SegmentationClass/b.png"), MASK)
    main = {"train.txt": "a\nc\n", "val.txt": "b\n", "cell_train.txt": "a  1\nb -1\n"}
    lists = {f"ImageSets/Main/{name}": text for name, text in main.items()}
    write(tmp_path, **images, **masks, **lists, **{"labelmap.txt": "background:0,0,0::\ncell:250,10,10::\n"})
    _, report, _ = read(tmp_path)
    assert (report.splits, report.clean) == ({"train": 1, "val": 1}, True)


def test_folders_of_labels_beside_those_of_splits_are_splits_too(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "valid", "fold3")):
        write(tmp_path, **{f"{split}/images/a.png": noise(number, 10, 12), f"{split}/labels/a.txt": OUTLINE})
    write(tmp_path, **{"classes.txt": "cell\n"})
    assert read(tmp_path)[1].splits == {"fold3": 1, "train": 1, "val": 1}


def test_what_data_yaml_leaves_open_is_named(tmp_path: Path) -> None:
    text = "train: train/images\nval: train/images\nholdout: holdout/images\nurl: https://x/y\nnames: [cell]\n"
    write(tmp_path, **{"data.yaml": text})
    for number, split in enumerate(("train", "test")):
        write(tmp_path, **{f"{split}/images/a.png": noise(number, 10, 12), f"{split}/labels/a.txt": OUTLINE})
    _, report, _ = read(tmp_path)
    assert report.splits == {"train": 1}
    assert "its holdout is 'holdout/images', which is neither" in details(report, "missing_partner")[0]
    assert "data.yaml does not name this folder, so it is not read" in details(report, "assumed")
    (tmp_path / "data.yaml").write_text("train: train/images\nval: test/images\nnames: [cell]\n")
    _, report, _ = read(tmp_path)
    assert (report.splits, report.faults) == ({"train": 1, "val": 1}, ())


@pytest.mark.parametrize(("place", "split"), [("", ""), ("images/", ""), ("fold 2/", "fold_2"), ("valid/", "val")])
def test_roboflow_s_folders_are_splits(tmp_path: Path, place: str, split: str) -> None:
    write(tmp_path / "set", **{f"{place}_annotations.coco.json": coco("a.png"), f"{place}a.png": noise(1, 10, 12)})
    write(tmp_path / "set", readme="")
    assert read(tmp_path / "set")[1].splits == {split: 1}


@pytest.mark.parametrize("name", ["val", "Validation", "sets/val2017"])
def test_a_dataset_in_the_folder_of_its_only_split_is_of_that_split(tmp_path: Path, name: str) -> None:
    write(tmp_path / "folders" / name, **pairs("a"), **{"classes.txt": CLASSES})
    tar(tmp_path / "shards" / name / "0000.tar", {"a.png": noise(1, 10, 12), "a.mask.png": MASK})
    write(tmp_path / "shards" / name, **{"classes.txt": CLASSES})
    for form in ("folders", "shards"):
        assert read(tmp_path / form)[1].splits == {"val": 1}
    write(tmp_path / "folders" / name, **{"train.txt": "a\n"})
    assert read(tmp_path / "folders")[1].splits == {"train": 1}


def test_captions_of_no_image_are_named_and_lines_end_where_json_lines_do(tmp_path: Path) -> None:
    lines = [{"stem": "a", "text": "one\u2028two\x85"}, {"stem": "lost", "text": "x"}]
    text = "\r\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    items, report, _ = read(write(tmp_path, **pairs("a", "b"), **{"dataset.json": TWO, "captions.jsonl": text}))
    assert (items["a"].caption, items["b"].caption) == ("one\u2028two\x85", None)
    assert details(report, "assumed") == ["1 of its stems are of no image, such as 'lost'; correct them"]


@pytest.mark.parametrize("text", [None, 7, ["a"]])
def test_a_caption_that_is_no_text_is_refused(tmp_path: Path, text: Any) -> None:
    write(tmp_path, **pairs("a"), **{"dataset.json": TWO, "captions.jsonl": json.dumps({"stem": "a", "text": text})})
    with pytest.raises(InvalidDataset, match="line 1 is not"):
        read(tmp_path)


def test_folders_beside_those_of_images_and_masks_are_named(tmp_path: Path) -> None:
    write(tmp_path, **pairs("a"), **{"classes.txt": CLASSES})
    write(tmp_path, **{"Images/b.png": noise(1, 10, 12), "MASKS/b.png": MASK, "img/a.png": noise(2, 10, 12)})
    write(tmp_path, **{"labels/a.txt": "", "other/c.png": noise(3, 10, 12)})
    _, report, _ = read(tmp_path)
    folders = faults(report)
    assert folders["assumed"] == ["img"]
    assert {name.casefold() for name in folders["unreadable"]} == {"images", "masks"}
    assert "move its files there" in details(report, "unreadable")[0]


def test_lists_of_classes_that_disagree_are_named_and_the_first_is_taken(tmp_path: Path) -> None:
    two = "name,r,g,b\nground,0,0,0\ncell,255,0,0\n"
    write(tmp_path, **pairs("a"), **{"class_dict.csv": two, "classes.txt": "cell\nground\n", "labels.txt": ""})
    _, report, classes = read(tmp_path)
    assert classes.names == ("ground", "cell")
    assert "its classes are cell, ground; those of class_dict.csv are taken, so delete one of the files" in details(
        report, "assumed"
    )
    (tmp_path / "classes.txt").write_text("Ground\ncell\n")
    assert not any("are taken" in detail for detail in details(read(tmp_path)[1], "assumed"))


@dataclass(frozen=True)
class Named:
    """A dataset of which nothing is known but its classes."""

    label: str
    classes: ClassList
    format: str = "dataset"


def test_renamed_classes_are_named_in_any_case_as_kept_ones_are(tmp_path: Path) -> None:
    part = Named("scenes", ClassList.of(["Ground", "Building", "Water"]))
    for keep in (["house", "water"], ["building", "WATER"], ["Building", "Water"]):
        matching = ClassMatching([part], keep, {"building": "house"}, None)
        assert [name.casefold() for name in matching.classes.names] == ["house", "water"]
    with pytest.raises(InvalidDataset, match="rename names 'buildng', which is not a class; did you mean 'Building'"):
        ClassMatching([part], None, {"buildng": "house"}, None)
