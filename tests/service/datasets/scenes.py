"""Small datasets with everything that formats tend to get wrong."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from service.datasets.classes import ClassList
from service.datasets.items import DatasetItem
from service.datasets.reading.checking import read_items
from service.datasets.reading.opening import open_dataset
from service.datasets.reading.report import Findings, ReadReport
from service.datasets.writing.about import ExportAbout
from service.datasets.writing.export import export_files
from service.datasets.writing.options import ExportOptions
from service.datasets.writing.sinks import FolderSink, write_all

SCENE_CLASSES = ClassList.of(["background", "wasser", "улица | 道", "never there", "dot"])
"""Class 0 is the background; class 3 never occurs."""
CLASSES_WITHOUT_BACKGROUND = ClassList.of(["sky", "wasser", "улица | 道", "never there", "dot"], background=None)
"""The same, with class 0 a class like any other."""
MANY = ClassList.of([f"class {number}" for number in range(254)], background=None)


def png(pixels: np.ndarray, mode: str | None = None) -> bytes:
    """A PNG written by Pillow."""
    out = io.BytesIO()
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(out, "PNG")
    return out.getvalue()


def noise(seed: int, height: int, width: int) -> bytes:
    """A random image, different for each seed."""
    return png(np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8))


def scene(number: int) -> np.ndarray:
    """A mask ``(24 + number, 31)``: a ring around an island, touching objects, single pixels and ignored regions."""
    labels = np.zeros((24 + number, 31), dtype=np.uint8)
    labels[2:13, 3:15] = 1
    labels[4:10, 5:12] = 0
    labels[6:8, 7:9] = 1
    labels[13:18, 3:9] = 2
    labels[18:20, 9:12] = 2
    labels[15, 20 + number % 8] = 4
    labels[23, 30] = 4
    labels[0, 0] = 4
    if number % 2:
        labels[5:9, 20:28] = 255
        labels[6, 22] = 2
    return labels


def scenes(count: int = 8, metadata: dict[str, object] | None = None) -> Iterator[DatasetItem]:
    """Items with names in several scripts, captions, and two items for each mask."""
    for number in range(count):
        labels = scene(number // 2)
        yield DatasetItem(
            name=f"Bild {number} ü/道_v1.{number}",
            image=noise(number, *labels.shape),
            mask=labels,
            source="synthetic" if number % 3 else "real",
            caption=f'caption {number} with "quotes" and a line\u2028break',
            source_mask=f"mask-{number // 2}",
            metadata=metadata or {"model": "toy@1.0.0", "seed": number, "scores": {"ppv": 0.5 + number / 100}},
        )


def many_classes() -> Iterator[DatasetItem]:
    """One item with all of 254 classes."""
    labels = np.repeat(np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16), 3, axis=0), 3, axis=1)
    labels[labels == 254] = 255
    yield DatasetItem("all", noise(1, 48, 48), labels)


def export(items: Iterable[DatasetItem], classes: ClassList, folder: Path, **options: object) -> Path:
    """Writes an export to ``folder``."""
    write_all(export_files(items, classes, ExportOptions.model_validate(options)), FolderSink(folder))
    return folder


def read(folder: Path, **options: object) -> tuple[dict[str, DatasetItem], ReadReport, ClassList]:
    """The dataset read to its end: items by name, the report, the classes."""
    source = open_dataset(folder, **options)  # type: ignore[arg-type]
    findings = Findings()
    items = {item.name: item for item in read_items(source, findings)}
    return items, findings.report(source.format), source.classes


def digests(folder: Path) -> dict[str, str]:
    """The sha256 of every file, by its path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def exported(items: list[DatasetItem], about: ExportAbout | None = None, **options: object) -> dict[str, bytes]:
    """The files of an export by path; the format is ``folders`` unless the options name another."""
    chosen = ExportOptions.model_validate({"format": "folders"} | options)
    return {file.path: file.read() for file in export_files(items, SCENE_CLASSES, chosen, about)}


def exported_mask(data: bytes) -> np.ndarray:
    """The samples of a mask file."""
    with Image.open(io.BytesIO(data)) as file:
        return np.array(file)


def many_items(count: int, masks: int) -> Iterator[DatasetItem]:
    """``count`` small items with ``masks`` different masks."""
    image = noise(1, 4, 4)
    for number in range(count):
        labels = (
            np.array([[number % masks % 5, number % masks // 5 % 5], [number % masks // 25, 0]], dtype=np.uint8)
            .repeat(2, 0)
            .repeat(2, 1)
        )
        yield DatasetItem(f"{number}", image, labels)
