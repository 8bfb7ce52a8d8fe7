"""Format detection: opens the dataset in a folder as a source of entries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from service.datasets.classes import ClassList
from service.datasets.reading.cityscapes import CityscapesSource, image_root
from service.datasets.reading.coco import CocoSource
from service.datasets.reading.coco_files import coco_files
from service.datasets.reading.datumaro import DatumaroSource
from service.datasets.reading.datumaro_files import datumaro_files
from service.datasets.reading.entry import DatasetSource
from service.datasets.reading.faults import named_faults
from service.datasets.reading.folder_layouts import folder_pairs, single_folders
from service.datasets.reading.folders import FoldersSource
from service.datasets.reading.huggingface import HuggingFaceSource, parquet_shards
from service.datasets.reading.levels import Levels
from service.datasets.reading.mask_encoding import MaskEncoding
from service.datasets.reading.medical import MedicalSource, is_medical
from service.datasets.reading.tree import dataset_root
from service.datasets.reading.twins import TwinsSource, is_twin_folder
from service.datasets.reading.unknown import explain_unknown
from service.datasets.reading.voc import VocSource
from service.datasets.reading.webdataset import WebDatasetSource, tar_shards
from service.datasets.reading.yolo import YoloSource
from service.datasets.reading.yolo_files import named_yaml, text_labelled, yaml_file
from service.errors import InvalidDataset

READ_FORMATS = (
    "folders", "coco", "datumaro", "voc", "cityscapes", "yolo", "huggingface", "webdataset", "twins", "medical",
)  # fmt: skip


def detect_format(root: Path) -> str | None:
    """The format of the dataset in ``root``, by its files; None if it is not one of :data:`READ_FORMATS`."""
    if (root / "SegmentationClass").is_dir() and (root / "JPEGImages").is_dir():
        return "voc"
    if image_root(root) is not None and (root / "gtFine").is_dir():
        return "cityscapes"
    if is_medical(root):
        return "medical"
    if is_twin_folder(root):
        return "twins"
    if yaml_file(root) is not None:
        return "yolo"
    if datumaro_files(root):
        return "datumaro"
    if coco_files(root):
        return "coco"
    if named_yaml(root) is not None or (text_labelled(root) and not (root / "masks").is_dir()):
        return "yolo"
    if folder_pairs(root):
        return "folders"
    if tar_shards(root):
        return "webdataset"
    if parquet_shards(root):
        return "huggingface"
    if single_folders(root):
        return "folders"
    return None


def open_dataset(
    folder: Path,
    *,
    format: str | None = None,
    classes: ClassList | None = None,
    encoding: MaskEncoding | None = None,
    levels: Levels | None = None,
) -> DatasetSource:
    """The dataset in a folder, in the named format or the detected one.

    ``classes`` replace those that the dataset lists; ``encoding`` is the mask encoding of ``folders``, ``levels``
    the window of ``medical``. Raises InvalidDataset naming what is missing.
    """
    if not folder.is_dir():
        raise InvalidDataset(f"{folder.name} is not a folder")
    with named_faults(f"the dataset in {folder.name}"):
        return _open(dataset_root(folder), format, classes, encoding, levels)


def _open(
    root: Path,
    format: str | None,
    classes: ClassList | None,
    encoding: MaskEncoding | None,
    levels: Levels | None,
) -> DatasetSource:
    found = format or detect_format(root)
    if found == "medical":
        return MedicalSource(root, classes, levels or Levels())
    if found == "folders":
        return FoldersSource(root, classes, encoding)
    sources: dict[str | None, Callable[[Path, ClassList | None], DatasetSource]] = {
        "coco": CocoSource,
        "datumaro": DatumaroSource,
        "voc": VocSource,
        "cityscapes": CityscapesSource,
        "yolo": YoloSource,
        "huggingface": HuggingFaceSource,
        "webdataset": WebDatasetSource,
        "twins": TwinsSource,
    }
    if found not in sources:
        raise InvalidDataset(explain_unknown(root) if found is None else f"the format {found!r} is not known")
    return sources[found](root, classes)
