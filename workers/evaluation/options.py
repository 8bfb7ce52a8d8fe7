"""Options that all ``twinset evaluate`` commands share: model, data, sampling and output."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from model_store import bundled_folder
from service.cli.config_file import ConfiguredCommand
from workers.training.options import COMMANDS, DATASET_HELP

if TYPE_CHECKING:
    from model_store.card import ModelCard
    from model_store.features import FeatureNetwork
    from service.datasets.reading.levels import Levels
    from workers.data.fit import Fit


class EvaluateCommand(ConfiguredCommand):
    """An evaluation, whose options stand in the section ``evaluate`` of a file."""

    sections = (*COMMANDS, "evaluate")
    section = "evaluate"


FOLDER = click.Path(file_okay=False, path_type=Path)

_OPTIONS = (
    click.option("--model", required=True, help="A model folder, or the name (or name@version) of a bundled model."),
    click.option("--data", required=True, metavar="DATASET", help=f"Its test split is used. {DATASET_HELP}"),
    click.option("--steps", type=click.IntRange(1), help="Sampling steps [default: the card's]."),
    click.option("--guidance", type=float, help="Guidance scale [default: the card's]."),
    click.option("--eta", type=click.FloatRange(0, 1), help="DDIM's eta [default: the card's]."),
    click.option(
        "--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the requests and of the samples."
    ),
    click.option(
        "--out", type=FOLDER, default=Path("evaluation"), show_default=True, help="Folder of the figures and images."
    ),
    click.option(
        "--segmenters", type=FOLDER, help="Folder of trained segmenters and classifiers [default: OUT/segmenters]."
    ),
    click.option(
        "--segmenter-epochs", type=click.IntRange(1), help="Shorter or longer segmenter training [default: by size]."
    ),
    click.option(
        "--features",
        default="best",
        show_default=True,
        help="Feature network of the Frechet distance; 'best' takes what is installed, 'none' leaves it out.",
    ),
    click.option(
        "--has-up/--no-up",
        "has_up",
        default=None,
        help="Whether scenes have an up, so that they may not be turned and flipped [default: dataset.json's].",
    ),
    click.option(
        "--record", is_flag=True, help="Also write the figures on the card of the model folder, as its `measured`."
    ),
    click.option("--device", default="auto", show_default=True),
    click.option("--dtype", default="auto", show_default=True),
)


@dataclass(frozen=True)
class CommonOptions:
    """The values of the options that all commands have; None if the card, the data or the size decides."""

    model: str
    data: str
    steps: int | None
    guidance: float | None
    eta: float | None
    seed: int
    out: Path
    segmenters: Path | None
    segmenter_epochs: int | None
    features: str
    has_up: bool | None
    record: bool
    device: str
    dtype: str

    @property
    def cache(self) -> Path:
        """The folder of trained auxiliary models."""
        return self.segmenters or self.out / "segmenters"

    def open_features(self) -> FeatureNetwork | None:
        """The feature network of ``--features``, if any. Raises as :func:`model_store.features.open_features` does."""
        from model_store.features import best_available, open_features

        return (
            None
            if self.features == "none"
            else open_features(best_available() if self.features == "best" else self.features)
        )


def common_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options of :class:`CommonOptions` to a command, whose first argument they become."""

    @functools.wraps(command)
    def gathered(**given: Any) -> None:
        command(CommonOptions(**{field.name: given.pop(field.name) for field in fields(CommonOptions)}), **given)

    decorated: Callable[..., None] = gathered
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


def check_system(folder: Path, system_name: str) -> None:
    """Raises ValueError, naming the right command, if the model in ``folder`` is of another system."""
    from model_store.card import load_card

    card = load_card(folder)
    if card.system != system_name:
        command = card.system.removesuffix("-diffusion")
        raise ValueError(
            f"{card.id} is a {card.system} model, not a {system_name} one; measure it with `twinset evaluate {command}`"
        )


def fit_of(card: ModelCard) -> Fit:
    """How the model's training images became squares, so that it is measured on real ones that did; crop by default."""
    from service.jobs.trained_fit import TrainedFit
    from workers.data.fit import Fit

    trained = TrainedFit.of(card)
    return Fit(kind=trained.kind or "crop", tile_px=trained.tile_px)


def window_of(card: ModelCard) -> Levels | None:
    """The window through which the model's training images were read, so that the real ones are read through it too."""
    from service.datasets.reading.levels import Levels
    from service.jobs.trained_fit import TrainedFit

    window = TrainedFit.of(card).window
    return None if window is None else Levels(*window)


def find_model(model: str) -> Path:
    """The folder of a model: one with a card.json, or a bundled ``name`` (newest version) or ``name@version``.

    Raises ValueError if there is none.
    """
    folder = Path(model)
    if (folder / "card.json").is_file():
        return folder
    name, _, version = model.partition("@")
    versions = (
        [path.parent for path in bundled_folder().glob(f"{name}/*/card.json")]
        if name.replace("-", "").isalnum()
        else []
    )
    if version:
        versions = [path for path in versions if path.name == version]
    if not versions:
        known = sorted({path.parents[1].name for path in bundled_folder().glob("*/*/card.json")})
        raise ValueError(
            f"{model!r} is neither a folder with a card.json nor a bundled model; bundled: {', '.join(known) or 'none'}"
        )
    return max(versions, key=lambda path: tuple(int(part) for part in path.name.split(".")))
