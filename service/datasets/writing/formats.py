"""The writers by format."""

from __future__ import annotations

from pathlib import Path

from service.datasets.classes import ClassList
from service.datasets.writing.base import FormatWriter
from service.datasets.writing.cityscapes import CityscapesWriter
from service.datasets.writing.coco import CocoWriter
from service.datasets.writing.folders import FoldersWriter
from service.datasets.writing.huggingface import HuggingFaceWriter
from service.datasets.writing.options import ExportOptions, Format
from service.datasets.writing.voc import VocWriter
from service.datasets.writing.webdataset import WebDatasetWriter
from service.datasets.writing.yolo import YoloWriter

_WRITERS: dict[Format, type[FormatWriter]] = {
    "folders": FoldersWriter,
    "coco": CocoWriter,
    "voc": VocWriter,
    "cityscapes": CityscapesWriter,
    "yolo": YoloWriter,
    "huggingface": HuggingFaceWriter,
    "webdataset": WebDatasetWriter,
}


def format_writer(classes: ClassList, options: ExportOptions, scratch: Path | None = None) -> FormatWriter:
    """The writer of the requested format. Raises MissingExtra if its packages are not installed."""
    return _WRITERS[options.format](classes, options, scratch)  # type: ignore[call-arg]
