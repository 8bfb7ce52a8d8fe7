"""Exports read by other projects' readers, or by their format's published rules: the same masks, classes and splits."""

from __future__ import annotations

import io
import json
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image, ImageDraw
from pycocotools.coco import COCO

from service.datasets.classes import IGNORE, ClassList
from tests.service.datasets.scenes import (
    CLASSES_WITHOUT_BACKGROUND,
    SCENE_CLASSES,
    export,
    scenes,
)

SPLITS = {"train": 0.5, "val": 0.5}
CLASSES = pytest.mark.parametrize(
    "classes", [SCENE_CLASSES, CLASSES_WITHOUT_BACKGROUND], ids=["background", "no background"]
)


def manifest(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def expected() -> dict[str, np.ndarray]:
    return {item.name: item.labels for item in scenes()}


def by_file(folder: Path) -> dict[str, tuple[str, np.ndarray]]:
    """The split and the true mask of each image, by the image's path in the export."""
    truth = expected()
    lines = manifest(folder)
    assert {line["split"] for line in lines} == set(SPLITS)
    assert len(lines) == len(truth)
    return {line["image"]["path"]: (line["split"], truth[line["name"]]) for line in lines}


@CLASSES
@pytest.mark.parametrize("polygons", [False, True], ids=["rle", "polygons"])
def test_pycocotools_reads_the_masks(tmp_path: Path, classes: ClassList, polygons: bool) -> None:
    folder = export(scenes(), classes, tmp_path, format="coco", splits=SPLITS, polygons=polygons)
    files = by_file(folder)
    seen = 0
    for split in SPLITS:
        coco = COCO(folder / "annotations" / f"instances_{split}.json")
        names = {entry["id"]: entry["name"] for entry in coco.loadCats(coco.getCatIds())}
        assert 0 not in names
        assert set(names.values()) - {"ignore"} == {entry.name for entry in classes.objects}
        for image in coco.loadImgs(coco.getImgIds()):
            in_split, truth = files[f"images/{split}/{image['file_name']}"]
            assert in_split == split
            assert (image["height"], image["width"]) == truth.shape
            background = IGNORE if classes.background is None else classes.background.index
            labels = np.full(truth.shape, background, dtype=np.uint8)
            annotations = coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]]))
            for annotation in annotations:
                name = names[annotation["category_id"]]
                mask = coco.annToMask(annotation).astype(bool)
                assert mask.sum() == annotation["area"]
                rows, columns = np.nonzero(mask)
                assert annotation["bbox"] == [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
                assert annotation["iscrowd"] == (name == "ignore")
                assert (labels[mask] == background).all(), "objects do not overlap"
                labels[mask] = IGNORE if name == "ignore" else classes.names.index(name)
            assert np.array_equal(labels, truth)
            seen += len(annotations)
    assert seen > 50
    assert all(line["lost"]["iou_max"] == 0 for line in manifest(folder)) if polygons else True


@CLASSES
def test_yolo_labels_give_the_masks_when_corners_are_rounded_down(tmp_path: Path, classes: ClassList) -> None:
    folder = export(scenes(), classes, tmp_path, format="yolo", splits=SPLITS)
    about = yaml.safe_load((folder / "data.yaml").read_text(encoding="utf-8"))
    assert list(about["names"].values()) == [entry.name for entry in classes.objects]
    checked = 0
    for path, (split, truth) in by_file(folder).items():
        assert path.startswith(about[split] + "/")
        label = folder / path.replace("images/", "labels/", 1).replace(".png", ".txt")
        canvas = Image.new("L", truth.shape[::-1], IGNORE)
        for line in label.read_text().splitlines():
            number, *shares = line.split()
            corners = np.array(shares, dtype=float).reshape(-1, 2) * truth.shape[::-1]
            assert len(corners) >= 3
            assert np.ptp(corners, axis=0).min() > 0
            index = classes.names.index(about["names"][int(number)])
            ImageDraw.Draw(canvas).polygon([(int(x), int(y)) for x, y in corners], fill=index, outline=index)
            checked += 1
        found = np.array(canvas)
        if classes.background is not None:
            found[found == IGNORE] = classes.background.index
            truth = np.where(truth == IGNORE, classes.background.index, truth)
        assert np.array_equal(found, truth)
    assert checked > 50
    assert all(line["lost"]["iou_max"] == 0 for line in manifest(folder))
    assert any(line["lost"]["ignore_pixels"] for line in manifest(folder))


def test_voc_by_its_published_rules(tmp_path: Path) -> None:
    folder = export(scenes(), SCENE_CLASSES, tmp_path, format="voc", splits=SPLITS, image_format="jpeg")
    lists = {
        split: (folder / "ImageSets/Segmentation" / f"{split}.txt").read_text(encoding="utf-8").split("\n")[:-1]
        for split in SPLITS
    }
    both = (folder / "ImageSets/Segmentation/trainval.txt").read_text(encoding="utf-8").split("\n")[:-1]
    assert sorted(both) == sorted(chain.from_iterable(lists.values()))
    palette = np.array([(c.colour) for c in SCENE_CLASSES.classes])
    for path, (split, truth) in by_file(folder).items():
        stem = Path(path).name.removesuffix(".jpg")
        assert stem in lists[split]
        with Image.open(folder / "JPEGImages" / f"{stem}.jpg") as image:
            assert image.format == "JPEG"
            assert image.size == truth.shape[::-1]
        with Image.open(folder / "SegmentationClass" / f"{stem}.png") as mask:
            assert mask.mode == "P"
            assert np.array_equal(np.array(mask), truth)
            shown = np.array(mask.convert("RGB"))
        assert np.array_equal(shown[truth < IGNORE], palette[truth[truth < IGNORE]])
        with Image.open(folder / "SegmentationObject" / f"{stem}.png") as numbers:
            objects = np.array(numbers)
        assert np.array_equal(objects == 0, truth == 0)
        assert np.array_equal(objects == IGNORE, truth == IGNORE)
        for number in set(np.unique(objects).tolist()) - {0, IGNORE}:
            assert len(np.unique(truth[objects == number])) == 1


def test_cityscapes_by_its_published_rules(tmp_path: Path) -> None:
    folder = export(scenes(), SCENE_CLASSES, tmp_path, format="cityscapes", splits=SPLITS)
    files = by_file(folder)
    for path, (split, truth) in files.items():
        tree, in_split, city, name = path.split("/")
        # getCsFileInfo of the published scripts: city, sequence and frame, divided by underscores
        parts = name.removesuffix(".png").split("_")
        assert (tree, in_split, parts[0], parts[3]) == ("leftImg8bit", split, city, "leftImg8bit")
        assert len(parts) == 4
        base = folder / path.replace("leftImg8bit/", "gtFine/", 1).replace("_leftImg8bit.png", "_gtFine_")
        with Image.open(f"{base}labelIds.png") as mask:
            assert mask.mode == "L"
            assert np.array_equal(np.array(mask), truth)
        with Image.open(f"{base}instanceIds.png") as mask:
            ids = np.array(mask).astype(np.int64)
        # published: an id below 1000 is a label; else it is label * 1000 + number
        assert np.array_equal(np.where(ids < 1000, ids, ids // 1000), truth)
        assert (ids >= 1000).any()
    assert {path.split("/")[2] for path in files} == {"real", "synthetic"}


def test_datasets_loads_images_masks_and_splits(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    folder = export(scenes(), SCENE_CLASSES, tmp_path / "set", format="huggingface", splits=SPLITS, shard_items=2)
    assert len(list((folder / "data").iterdir())) == 4
    loaded = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    truth = {line["name"]: line["split"] for line in manifest(folder)}
    masks = expected()
    assert set(loaded) == set(SPLITS)
    features = loaded["train"].features
    assert isinstance(features["image"], datasets.Image)
    assert isinstance(features["mask"], datasets.Image)
    names = []
    for split in SPLITS:
        for row in loaded[split]:
            assert truth[row["name"]] == split
            assert np.array_equal(np.array(row["mask"]), masks[row["name"]])
            assert row["image"].size == masks[row["name"]].shape[::-1]
            assert row["caption"].startswith("caption ")
            assert json.loads(row["metadata"])["model"] == "toy@1.0.0"
            names.append(row["name"])
    assert sorted(names) == sorted(masks)


def test_webdataset_reads_the_shards(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    folder = export(scenes(), SCENE_CLASSES, tmp_path, format="webdataset", splits=SPLITS, shard_items=3)
    masks, names = expected(), []
    originals = {item.name: item.image for item in scenes()}
    for split in SPLITS:
        shards = sorted(str(path) for path in folder.glob(f"{split}-*.tar"))
        assert len(shards) == -(-sum(line["split"] == split for line in manifest(folder)) // 3)
        for sample in webdataset.WebDataset(shards, shardshuffle=False):
            about = json.loads(sample["json"])
            with Image.open(io.BytesIO(sample["mask.png"])) as mask:
                assert np.array_equal(np.array(mask), masks[about["name"]])
            assert sample["png"] == originals[about["name"]]
            assert about["split"] == split
            names.append(about["name"])
    assert sorted(names) == sorted(masks)
    assert len(list(folder.glob("*.tar"))) > 2


def test_folders_are_what_training_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from workers.data.captions import read_texts
    from workers.data.training_set import TrainingSet

    folder = export(scenes(), SCENE_CLASSES, tmp_path, format="folders", splits=SPLITS)
    truth = {line["image"]["path"]: line for line in manifest(folder)}
    monkeypatch.setenv("TWINSET_DATA_DIR", str(tmp_path / "data"))
    opened = TrainingSet.open(folder)
    assert tuple(entry.name for entry in opened.classes) == SCENE_CLASSES.names
    stems = {split: opened.stems(split) for split in SPLITS}
    assert sum(map(len, stems.values())) == len(truth)
    for split, listed in stems.items():
        for stem in listed:
            assert truth[f"images/{stem}.png"]["split"] == split
            with Image.open(folder / "masks" / f"{stem}.png") as mask:
                assert np.array_equal(np.array(mask), expected()[truth[f"images/{stem}.png"]["name"]])
    assert len(read_texts(opened, stems["train"])) == len(stems["train"])
