"""What names cost grows with their number, also where none of them fits: most faults are of a whole dataset."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from service.datasets.reading.class_lists import find_classes
from service.errors import InvalidDataset
from tests.service.datasets.hand_written import SQUARE, write
from tests.service.datasets.scenes import noise, png, read

MANY = 3000
MAX_S = 5.0
"""Each takes about a second; with a look through all names for each name, 14 s and more."""


def test_images_of_which_none_has_its_mask(tmp_path: Path) -> None:
    image, mask = noise(1, 10, 12), png(SQUARE)
    images = {f"images/i{number}.png": image for number in range(MANY)}
    masks = {f"masks/m{number}x.png": mask for number in range(MANY)}
    write(tmp_path, **images, **masks, **{"classes.txt": "background\ncell\n"})
    began = time.perf_counter()
    _, report, _ = read(tmp_path)
    assert (report.items, report.skipped) == (0, 2 * MANY)
    assert time.perf_counter() - began < MAX_S


def test_names_of_which_none_is_in_the_dataset(tmp_path: Path) -> None:
    write(tmp_path, **{f"images/i{number}.png": noise(1, 10, 12) for number in range(MANY)})
    outline = {"id": 1, "image_id": 0, "category_id": 1, "segmentation": [[3, 2, 9, 2, 9, 6, 3, 6]]}
    images = [{"id": number, "file_name": f"{number or 'i0'}.png"} for number in range(MANY + 1)]
    text = json.dumps({"images": images, "annotations": [outline], "categories": [{"id": 1, "name": "cell"}]})
    write(tmp_path, **{"annotations/instances_train.json": text})
    began = time.perf_counter()
    _, report, _ = read(tmp_path)
    assert (report.items, report.skipped) == (1, MANY)
    assert time.perf_counter() - began < MAX_S


def test_very_many_categories(tmp_path: Path) -> None:
    categories = [{"id": number, "name": f"c{number}", "supercategory": ""} for number in range(10 * MANY)]
    text = json.dumps({"images": [], "annotations": [], "categories": categories})
    began = time.perf_counter()
    with pytest.raises(InvalidDataset, match="30000 classes are listed"):
        read(write(tmp_path, **{"annotations/instances_train.json": text}))
    assert time.perf_counter() - began < MAX_S


def test_very_many_lines_of_a_list_of_classes(tmp_path: Path) -> None:
    write(tmp_path, **{"classes.txt": "".join(f"c{number}\n" for number in range(100 * MANY))})
    began = time.perf_counter()
    with pytest.raises(InvalidDataset, match="300000 classes are listed"):
        find_classes(tmp_path)
    assert time.perf_counter() - began < MAX_S
