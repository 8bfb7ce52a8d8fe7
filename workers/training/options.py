"""Options that several training commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from service.datasets.reading.levels import Levels
    from workers.data.fit import Fit, FitKind
    from workers.data.stream import InputOptions

Command = TypeVar("Command", bound=Callable[..., Any])

READ_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
WRITTEN_FOLDER = click.Path(file_okay=False, path_type=Path)
DATASET_HELP = "A folder in any format that 'twinset datasets check' reads, a zip or tar of one, or NAME@VERSION."
READ_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

_OF_DATASETS = ("images", "masks", "manifest.jsonl", "dataset.json", "card.json")
MAX_GUIDANCE = 20.0
"""The largest default that a card of ours allows: its own limit."""


def check_name(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Refuses a name that no card may have, before the training starts."""
    from model_store.card import NAME_PATTERN

    if value is not None and not re.fullmatch(NAME_PATTERN, value):
        raise click.BadParameter(
            f"{value!r} is not a model name; one has lower-case letters, digits and hyphens: {NAME_PATTERN}"
        )
    return value


def check_version(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """The same for a version."""
    from model_store.card import VERSION_PATTERN

    if not re.fullmatch(VERSION_PATTERN, value):
        raise click.BadParameter(f"{value!r} is not a version; one has three numbers, as in 1.0.0")
    return value


def check_run_folder(context: click.Context, parameter: click.Parameter, value: Path) -> Path:
    """Refuses a folder of a dataset or of twins, before anything is written into it."""
    other = next((name for name in _OF_DATASETS if (value / name).exists()), None)
    if other is not None:
        raise click.BadParameter(f"{value} has {other}, so it is no run's folder; name a new one")
    return value


OUT_OPTION = click.option(
    "--out",
    required=True,
    type=WRITTEN_FOLDER,
    callback=check_run_folder,
    help="The run's folder; a run in it is resumed.",
)

_RUN = (
    OUT_OPTION,
    click.option("--iterations", type=click.IntRange(1), help="[default: the preset's]"),
    click.option("--batch-size", type=click.IntRange(1), help="Images an iteration, over all processes."),
    click.option("--learning-rate", type=click.FloatRange(0, min_open=True)),
    click.option(
        "--ema-decay", type=click.FloatRange(0, 1, max_open=True), help="Of the averaged weights; 0 for no average."
    ),
    click.option("--seed", type=click.IntRange(0)),
    click.option(
        "--precision",
        type=click.Choice(["no", "bf16", "fp16"]),
        default="bf16",
        show_default=True,
        help="Mixed precision.",
    ),
    click.option("--cpu", is_flag=True, help="Train on the CPU even if there is a GPU."),
    click.option(
        "--no-up/--has-up",
        "no_up",
        default=None,
        help="Whether images may be turned and flipped [default: dataset.json's].",
    ),
    click.option("--checkpoint-every", default=500, show_default=True, type=click.IntRange(1)),
    click.option("--sample-every", default=1000, show_default=True, type=click.IntRange(1)),
    click.option("--log-every", default=50, show_default=True, type=click.IntRange(1)),
)

_DATA = (
    click.option(
        "--fit",
        type=click.Choice(["crop", "stretch", "tiles"]),
        help="How images become squares: the centre, squeezed whole, or tiles at one scale.  [default: crop]",
    ),
    click.option("--tile-px", type=click.IntRange(8), help="Side of a tile in the images' own pixels."),
    click.option(
        "--scale",
        type=click.FloatRange(0, min_open=True),
        help="The same by scale: pixels of the network for one of an image.  [default: 1]",
    ),
    click.option(
        "--seen",
        multiple=True,
        metavar="CLASS=SHARE",
        help="Cut this share of the tiles around a class.  [default: half, over all classes]",
    ),
    click.option(
        "--window",
        metavar="LOW,HIGH",
        help="Levels of 16-bit, 32-bit, DICOM and NIfTI images that are black and white.  [default: the file's own]",
    ),
    click.option(
        "--data-workers",
        type=click.IntRange(0),
        help="Processes that decode ahead; batches stay the same.  [default: auto]",
    ),
    click.option(
        "--data-cache",
        type=click.IntRange(1),
        default=1024,
        show_default=True,
        metavar="MIB",
        help="Memory for decoded images, in MiB.",
    ),
)

_MODEL = (
    click.option(
        "--alias",
        "aliases",
        multiple=True,
        metavar="CLASS=WORD[,WORD]",
        help="Words for a class; the first is the one for prompts.",
    ),
    click.option("--name", callback=check_name, help="The model's name [default: SYSTEM-FOLDER]."),
    click.option("--version", "model_version", default="1.0.0", show_default=True, callback=check_version),
    click.option("--title", help="One line on what the model makes."),
    click.option(
        "--guidance-scale", type=click.FloatRange(0, MAX_GUIDANCE), help="The card's default [default: the preset's]."
    ),
    click.option("--note", "notes", multiple=True, help="A remark on the training, for the card."),
)

_BASE = (
    click.option(
        "--base",
        "base_folder",
        required=True,
        type=READ_FOLDER,
        help="Of `twinset train base`, or a Stable Diffusion 1.5.",
    ),
    click.option(
        "--size",
        "size_px",
        type=click.IntRange(8),
        help="Side of the images [default: the base's; 384 for paper presets].",
    ),
    click.option(
        "--chunks",
        default=1,
        show_default=True,
        type=click.IntRange(1),
        help="Chunks of text that a Stable Diffusion's CLIP reads.",
    ),
)


_CAPTIONED = (
    click.option(
        "--repeat-below",
        type=click.FloatRange(0, 1),
        help="Draw images with captions rarer than this more often; 0 is the papers'.",
    ),
)


def captioned_run_options(command: Command) -> Command:
    """:func:`run_options` of a run that draws images with captions."""
    return run_options(_with(_CAPTIONED, command))


def data_options(command: Command) -> Command:
    """The options of how the data are read; see :func:`pop_data_options`."""
    return _with(_DATA, command)


@dataclass(frozen=True)
class DataChoices:
    """The values of :func:`data_options`."""

    kind: FitKind | None
    tile_px: int | None
    scale: float | None
    seen: dict[str, float]
    input: InputOptions
    window: Levels | None

    def fit(self, size_px: int) -> Fit | None:
        """The fit for a network's size; None if none of them chooses one. Raises ValueError for a wrong mix of them."""
        if self.kind is None and self.tile_px is None and self.scale is None and not self.seen:
            return None
        from workers.data.fit import chosen_fit

        return chosen_fit(self.kind, self.tile_px, self.scale, self.seen, size_px)


def pop_data_options(options: dict[str, Any]) -> DataChoices:
    """Removes the values of :func:`data_options` from a command's. Raises ValueError for --seen of another form."""
    from service.datasets.reading.levels import read_window
    from workers.data.stream import InputOptions

    seen: dict[str, float] = {}
    for text in options.pop("seen"):
        name, _, share = text.rpartition("=")
        try:
            seen[name.strip()] = float(share)
        except ValueError:
            raise ValueError(f"--seen {text!r} should look like 'Water=0.2'") from None
    reading = InputOptions(options.pop("data_workers"), options.pop("data_cache") << 20)
    text = options.pop("window")
    window = None if text is None else read_window(text)
    return DataChoices(options.pop("fit"), options.pop("tile_px"), options.pop("scale"), seen, reading, window)


def run_options(command: Command) -> Command:
    """The options of a run: its folder, length, precision and device."""
    return _with(_RUN, command)


def model_options(command: Command) -> Command:
    """The options of the exported model: its name, and what its card says."""
    return _with(_MODEL, command)


def base_options(command: Command) -> Command:
    """The options of the latent base that a mask system is trained on."""
    return _with(_BASE, command)


def _with(options: tuple[Callable[[Command], Command], ...], command: Command) -> Command:
    # click lists options in the opposite order of their application
    for option in reversed(options):
        command = option(command)
    return command


def parse_aliases(pairs: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """``("Road=roads,street",)`` -> ``{"Road": ("roads", "street")}``. Raises ValueError for anything else."""
    found: dict[str, tuple[str, ...]] = {}
    for pair in pairs:
        name, separator, words = pair.partition("=")
        listed = tuple(word.strip() for word in words.split(",") if word.strip())
        if not separator or not name.strip() or not listed:
            raise ValueError(f"--alias {pair!r} should look like 'Road=roads,street'")
        found[name.strip()] = listed
    return found


def model_name(system: str, dataset: str) -> str:
    """The default name of a model: ``siamese-kvasir-seg`` for ``kvasir_seg``, without characters that no name has."""
    words = re.findall(r"[a-z0-9]+", dataset.lower())
    return "-".join([system, *words])[:63].rstrip("-")
