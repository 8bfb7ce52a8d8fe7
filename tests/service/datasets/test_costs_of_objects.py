"""What objects cost is bounded by their own size, and for all objects of an image together."""

from __future__ import annotations

import re
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.datasets.classes import ClassList
from service.datasets.filling import fill_coco, fill_with_border
from service.datasets.items import DatasetItem
from service.datasets.patches import EMPTY, FillBudget, Patch
from service.datasets.reading.checking import read_items
from service.datasets.reading.opening import open_dataset
from service.datasets.reading.painting import PaintedObject, paint
from service.datasets.reading.report import Findings
from service.datasets.rle import RleInvalid, as_runs, decode
from service.datasets.writing import prepare
from service.datasets.writing.export import export_files
from service.datasets.writing.options import ExportOptions
from service.datasets.writing.skipped import SkippedItems
from tests.service.datasets.scenes import png

SIDE = 11_500
WHOLE = np.array([[0, 0], [SIDE, 0], [SIDE, SIDE], [0, SIDE]], dtype=np.float64)
SMALL = np.array([[500, 700], [505, 700], [505, 704]], dtype=np.float64)
Fill = Callable[[np.ndarray, int, int, FillBudget], Patch]
FILLS: list[Fill] = [
    fill_with_border,
    lambda polygon, height, width, budget: fill_coco([polygon], height, width, budget),
    lambda polygon, height, width, budget: decode(
        np.array([7 * height + 5, 3, height * width - 7 * height - 8]), height, width, budget
    ),
]


@pytest.fixture
def memory() -> Iterator[Callable[[], int]]:
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


@pytest.mark.parametrize("fill", FILLS, ids=["YOLO", "COCO's polygons", "COCO's runs"])
def test_a_small_object_in_a_large_image_costs_little(fill: Fill, memory: Callable[[], int]) -> None:
    start = time.process_time()
    for _ in range(500):
        assert fill(SMALL, SIDE, SIDE, FillBudget()).mask.any()
    assert time.process_time() - start < 5
    assert memory() < 1 << 20


@pytest.mark.parametrize("fill", FILLS[:2], ids=["YOLO", "COCO"])
def test_objects_that_cover_the_image_again_and_again_are_refused(fill: Fill) -> None:
    budget = FillBudget(40_000_000)
    polygon = WHOLE / 10
    fill(polygon, SIDE // 10, SIDE // 10, budget)

    def again() -> None:
        for _ in range(100):
            fill(polygon, SIDE // 10, SIDE // 10, budget)

    with pytest.raises(ValueError, match="drawn on more than 40000000 pixels; cut the image into tiles"):
        again()


def test_an_outline_of_very_many_corners_is_refused() -> None:
    zigzag = np.stack([np.arange(400_000) % 1000, np.arange(400_000) % 7 * 1000], axis=1).astype(np.float64)
    for fill in FILLS[:2]:
        start = time.process_time()
        with pytest.raises(ValueError, match=r"drawn on more than|px long"):
            fill(zigzag, 8000, 8000, FillBudget(1 << 28))
        assert time.process_time() - start < 2


def test_a_large_polygon_is_filled_in_pieces(memory: Callable[[], int]) -> None:
    patch = fill_coco([WHOLE / 4], SIDE, SIDE)
    assert patch.mask.all()
    assert patch.mask.shape == (SIDE // 4, SIDE // 4)
    assert memory() < 5 * patch.mask.size


def test_many_large_objects_are_kept_small(memory: Callable[[], int]) -> None:
    masks = (Patch(0, 0, np.ones((1000, 1000), dtype=bool)) for _ in range(60))
    painted = paint((PaintedObject(mask, 1) for mask in masks), 1000, 1000, 0)
    assert painted.labels.all()
    assert memory() < 24 << 20


def test_a_patch_scores_as_a_whole_mask_does() -> None:
    rng = np.random.default_rng(3)
    regions = rng.integers(0, 3, (20, 30)).astype(np.int32)
    patch = Patch(4, 5, rng.integers(0, 2, (7, 9)).astype(bool))
    whole = patch.on_canvas(20, 30)
    for number in (1, 2):
        true = regions == number
        expected = np.count_nonzero(whole & true) / np.count_nonzero(whole | true)
        assert patch.iou(regions, number, int(true.sum())) == expected
    assert EMPTY.iou(regions, 5, 0) == 1.0
    trimmed = patch.trimmed()
    assert trimmed is not None
    assert np.array_equal(trimmed.on_canvas(20, 30), whole)
    assert EMPTY.trimmed() is None


def test_runs_are_limited() -> None:
    with pytest.raises(RleInvalid, match="4000001 characters; the limit is 4000000"):
        as_runs("0" * 4_000_001)
    with pytest.raises(RleInvalid, match="4000001 runs; the limit is 4000000"):
        as_runs([1] * 4_000_001)


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        (
            "0 0 0 1 0 1 1 0 1\n" * 6000,
            "line [0-9]+ of its labels: with it, the image's objects are drawn on more than",
        ),
        ("0 " + "0.5 0.25 " * 500_000 + "\n", "line 1 of its labels has 4500003 characters; the limit is 4000000"),
    ],
)
def test_costly_labels_are_reported_and_other_items_read(labels: str, why: str, tmp_path: Path) -> None:
    for folder in ("images/train", "labels/train"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "data.yaml").write_text("names: [thing]\ntrain: images/train\n")
    for number, text in enumerate((labels, "0 0.1 0.1 0.9 0.1 0.9 0.9\n")):
        Image.new("RGB", (700, 700), (number, 0, 0)).save(tmp_path / f"images/train/{number}.png")
        (tmp_path / f"labels/train/{number}.txt").write_text(text)
    findings = Findings()
    source = open_dataset(tmp_path)
    assert [item.name for item in read_items(source, findings)] == ["1"]
    (group,) = findings.report("yolo").faults
    assert group.kind == "bad_annotation"
    assert re.search(why, group.first[0].detail)


def test_a_mask_like_noise_is_left_out_of_formats_of_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "_MAX_BORDERS", 1000)
    noise = np.random.default_rng(1).integers(0, 2, (40, 40), dtype=np.uint8)
    calm = np.zeros((40, 40), dtype=np.uint8)
    calm[10:20, 10:20] = 1
    items = [
        DatasetItem(name=name, image=png(np.full((40, 40, 3), number, dtype=np.uint8)), mask=mask)
        for number, (name, mask) in enumerate([("noise", noise), ("calm", calm)])
    ]
    skipped = SkippedItems()
    written = export_files(items, ClassList.of(["background", "thing"]), ExportOptions(format="coco"), skipped=skipped)
    names = [file.path for file in written]
    assert "images/train/calm.png" in names
    (group,) = skipped.groups()
    assert (group.reason, group.count) == ("too_detailed", 1)
    assert "Cut it into tiles, or export as folders" in group.first[0].detail
