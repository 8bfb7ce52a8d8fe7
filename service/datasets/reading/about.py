"""What a dataset states in ``dataset.json`` besides its classes: name, licence, whether scenes have an up, scale."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.datasets.reading.tree import as_text, read_text
from service.datasets.writing.about import TrainingData
from service.errors import InvalidDataset
from service.kit.documents import parse_json


def read_training_data(root: Path, label: str) -> TrainingData:
    """The name and licence in ``dataset.json``; ``label`` is the name if it has none."""
    about = _stated(root)
    stated = {key: about[key] for key in ("name", "licence") if isinstance(about.get(key), str) and about[key]}
    return TrainingData(**{key: as_text(text) for key, text in {"name": label, **stated}.items()})


@dataclass(frozen=True)
class SceneAbout:
    """Whether the scenes have an up, and the side of a pixel in metres; None for what the dataset does not say."""

    has_up: bool | None = None
    metres_per_px: float | None = None


def read_scene(root: Path) -> SceneAbout:
    """``has_up``, and ``metres_per_px`` or ``micrometres_per_px``. Raises InvalidDataset for values of another kind."""
    about = _stated(root)
    has_up = about.get("has_up")
    if not isinstance(has_up, bool | None):
        raise InvalidDataset(f"dataset.json has has_up {has_up!r:.80}; it should be true or false")
    scale = None
    for member, metres in (("metres_per_px", 1.0), ("micrometres_per_px", 1e-6)):
        value = about.get(member)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6:
            raise InvalidDataset(f"dataset.json has {member} {value!r:.80}; give a number above 0, such as 0.25")
        if scale is not None:
            raise InvalidDataset("dataset.json has metres_per_px and micrometres_per_px; keep one of them")
        scale = float(value) * metres
    return SceneAbout(has_up, scale)


def _stated(root: Path) -> dict[str, Any]:
    path = root / "dataset.json"
    try:
        about = parse_json(read_text(path)) if path.is_file() else {}
    except (ValueError, InvalidDataset):
        about = {}
    return about if isinstance(about, dict) else {}
