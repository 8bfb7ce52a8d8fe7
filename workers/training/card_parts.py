"""Parts of every trained model's card: fingerprints, versions, the end of the log, intended use."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from model_store.card import CardInvalid, ModelCard, WeightsFile, load_card
from workers.data.fit import Fit
from workers.training.training_log import read_log

INTENDED_USE = "More training images for segmentation models of the same kind of scene, mixed with real ones."
LIMITS_OF_USE = (
    "Synthetic: no image shows a real place, person or patient, and none is evidence of anything. Check a model "
    "trained "
    "with these twins on real, held-out data. The model shows what its training set shows, with its gaps and biases."
)


class ExportImpossible(ValueError):
    """A model that cannot be exported; the message says what is missing or wrong."""


def weights_file(path: Path) -> WeightsFile:
    """A file's entry in the card: its sha256 and its size."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return WeightsFile(sha256=digest, bytes=path.stat().st_size)


def last_log_line(path: Path) -> dict[str, Any] | None:
    """The last line of a training log, or None if it is empty or missing."""
    lines = list(read_log(path)) if path.is_file() else []
    return lines[-1] if lines else None


def versions(*packages: str) -> dict[str, str]:
    """The installed versions of packages, by name."""
    return {package: installed_version(package) for package in packages}


def joined_licences(licences: Iterable[str]) -> str:
    """The licences of all training data, each once, in order."""
    return "; ".join(dict.fromkeys(licence for licence in licences if licence))


def fit_deviation(fit: Fit) -> list[str]:
    """How images became squares, as sentences for a card; none for the centre crop."""
    if fit.tile_px is not None:
        seen = ", ".join(f"{share:.0%} of them around {name}" for name, share in fit.seen.items())
        return [
            f"Trained on random tiles of {fit.tile_px} px of the images, {seen or 'half of them cut around a class'}."
        ]
    return ["Images are squeezed to squares."] if fit.kind == "stretch" else []


def keep_figures(card: ModelCard, folder: Path) -> ModelCard:
    """The card with what ``twinset evaluate`` measured of the same weights, if ``folder`` has that on its card."""
    try:
        former = load_card(folder)
    except (CardInvalid, OSError):
        return card
    if former.files != card.files:
        return card
    return card.model_copy(update={"measured": {**former.measured, **card.measured}})
