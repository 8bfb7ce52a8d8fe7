"""A dataset's own words of itself: its name and its licence."""

from __future__ import annotations

import json
from pathlib import Path

from service.datasets.reading.tree import as_text, read_text
from service.datasets.writing.about import TrainingData
from service.errors import InvalidDataset


def about_data(root: Path, label: str) -> TrainingData:
    """Name and licence as ``dataset.json`` has them; ``label`` is the name where it has none."""
    path = root / "dataset.json"
    try:
        about = json.loads(read_text(path)) if path.is_file() else {}
    except (ValueError, RecursionError, InvalidDataset):
        about = {}
    said = {
        key: about[key]
        for key in ("name", "licence")
        if isinstance(about, dict) and isinstance(about.get(key), str) and about[key]
    }
    return TrainingData(**{key: as_text(text) for key, text in {"name": label, **said}.items()})
