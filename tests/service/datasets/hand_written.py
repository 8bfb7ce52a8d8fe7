"""Helpers for small datasets written by hand."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from service.datasets.classes import ClassList

TWO = ClassList.of(["background", "cell"])
SQUARE = np.zeros((10, 12), dtype=np.uint8)
SQUARE[2:6, 3:9] = 1
RAW = {"background": [0, 0, 0], "cell": [250, 10, 10]}


def write(folder: Path, **files: bytes | str) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    return folder


def listed(names: list[str]) -> str:
    return json.dumps({"classes": [{"index": index, "name": name} for index, name in enumerate(names)]})


def indexed(labels: np.ndarray) -> bytes:
    """A PNG of indices with an arbitrary palette."""
    mask = Image.frombytes("P", labels.shape[::-1], labels.tobytes())
    mask.putpalette([channel for index in range(256) for channel in (index, index // 2, 7)])
    out = io.BytesIO()
    mask.save(out, "PNG")
    return out.getvalue()


def faults(report: Any) -> dict[str, list[str]]:
    return {group.kind: [finding.file for finding in group.first] for group in report.faults}
