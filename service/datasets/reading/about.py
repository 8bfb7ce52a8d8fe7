"""The name and licence that a dataset states in ``dataset.json``."""

from __future__ import annotations

from pathlib import Path

from service.datasets.reading.tree import as_text, read_text
from service.datasets.writing.about import TrainingData
from service.errors import InvalidDataset
from service.kit.documents import parse_json


def read_training_data(root: Path, label: str) -> TrainingData:
    """The name and licence in ``dataset.json``; ``label`` is the name if it has none."""
    path = root / "dataset.json"
    try:
        about = parse_json(read_text(path)) if path.is_file() else {}
    except (ValueError, InvalidDataset):
        about = {}
    stated = {
        key: about[key]
        for key in ("name", "licence")
        if isinstance(about, dict) and isinstance(about.get(key), str) and about[key]
    }
    return TrainingData(**{key: as_text(text) for key, text in {"name": label, **stated}.items()})
