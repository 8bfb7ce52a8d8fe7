"""Options of the training commands beside those of their settings: data, parts, the run's folder, the machine."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from service.cli.config_file import ConfiguredCommand
from service.cli.model_options import model_options
from service.cli.server_training import server_options
from service.trainings.options import OPTIONS, SystemName
from service.trainings.work import MODELS

Command = TypeVar("Command", bound=Callable[..., Any])

WRITTEN_FOLDER = click.Path(file_okay=False, path_type=Path)
READ_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
READ_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
DATASET_HELP = "A folder in any format that 'twinset datasets check' reads, a zip or tar of one, or NAME@VERSION."
COMMANDS = ("cosimgen", "superres", "autoencoder", "base", "siamese", "pathdiff")
"""The training commands; a file may have a section for each, and one for evaluation."""
LOCAL_OPTIONS = (
    "out",
    "cpu",
    "version",
    "data_workers",
    "data_cache",
    "list",
    "text_list",
    "mask_list",
    "features_weights",
    "clip",
)
"""Options that only a training on this machine has."""
_EPILOG = "An option that is not given and shows no default has the preset's value."
_OF_DATASETS = ("images", "masks", "manifest.jsonl", "dataset.json", "card.json")


class TrainCommand(ConfiguredCommand):
    """A training command."""

    sections = (*COMMANDS, "evaluate")


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


def check_run_folder(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    """Refuses a folder of a dataset or of twins, before anything is written into it."""
    other = None if value is None else next((name for name in _OF_DATASETS if (value / name).exists()), None)
    if other is not None:
        raise click.BadParameter(f"{value} has {other}, so it is no run's folder; name a new one")
    return value


_MODEL = (
    click.option("--name", callback=check_name, help="The model's name.  [default: SYSTEM-DATASET]"),
    click.option("--version", default="1.0.0", show_default=True, callback=check_version),
)

_MACHINE = (
    click.option(
        "--out",
        type=WRITTEN_FOLDER,
        callback=check_run_folder,
        help="The run's folder; a run in it is resumed.  [required without --url]",
    ),
    click.option("--cpu", is_flag=True, help="Train on the CPU even if there is a GPU."),
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


def training_command(command_name: str, system: SystemName) -> Callable[[Callable[..., Any]], click.Command]:
    """Makes a function a training command: with the options of its system, its machine, and of a server."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        # click lists the options that were added last first: those of the command itself, its data and parts
        own = function.__dict__.pop("__click_params__", [])
        decorated = model_options(OPTIONS[system])(_with(_MACHINE, server_options(function)))
        if system in MODELS:
            decorated = _with(_MODEL, decorated)
        decorated.__dict__["__click_params__"] += own
        return click.command(command_name, cls=TrainCommand, epilog=_EPILOG)(decorated)

    return decorate


def _with(options: tuple[Callable[[Command], Command], ...], command: Command) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def data_option(flag: str = "--data", help: str = "", **options: Any) -> Callable[[Command], Command]:
    """A dataset to train on."""
    return click.option(flag, required=True, metavar="DATASET", help=f"{help} {DATASET_HELP}".strip(), **options)


def list_option(flag: str = "--list", of: str = "--data") -> Callable[[Command], Command]:
    """A file of the items to train on."""
    return click.option(flag, type=READ_FILE, help=f"Stems of {of} to train on, in the place of its train.txt.")


def part_option(flag: str, help: str) -> Callable[[Command], Command]:
    """A part that the model is built on: a folder, or with --url another training."""
    return click.option(flag, metavar="FOLDER", help=f"{help} With --url: training/ID.")


def part_folder(flag: str, value: str) -> Path:
    """The folder of a part. Raises a usage error if there is none."""
    try:
        folder: Path = READ_FOLDER.convert(value, None, None)
    except click.BadParameter as error:
        raise click.BadParameter(error.message, param_hint=f"'{flag}'") from None
    return folder


def require_part(name: str) -> None:
    """Raises a usage error if a training on this machine lacks a part; on a server it is trained first."""
    options = click.get_current_context().params
    if options[name] is None and options["url"] is None:
        raise click.UsageError(f"Missing option '--{name}'. With --url it may be left out: it is then trained first.")
