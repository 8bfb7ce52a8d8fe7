"""What the training commands do alike: a run that goes on and says so, errors in one line, a model that is ready to be registered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

if TYPE_CHECKING:
    from model_store.card import Card
    from workers.training.trainer import Trainer


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """What a user can put right, as a message without a traceback."""
    from model_store.features import FeaturesUnavailable
    from model_store.text import TextEncoderMissing
    from workers.training.card_parts import ExportImpossible
    from workers.training.data import DatasetInvalid

    try:
        yield
    except (DatasetInvalid, ExportImpossible, FeaturesUnavailable, TextEncoderMissing, FloatingPointError, ValueError) as error:
        raise click.ClickException(str(error)) from None


def taken_every(options: dict[str, Any]) -> dict[str, int]:
    """Takes out of a command's options how often a run is to note, show and say something."""
    return {name: options.pop(name) for name in ("checkpoint_every", "sample_every", "log_every")}


def run_through(trainer: Trainer, out: Path, console: Console, **every: int) -> int:
    """Runs to the end, from the checkpoint in ``out`` where there is one; the iterations that are done. See :func:`taken_every`."""
    if trainer.start and trainer.accelerator.is_main_process:
        console.print(f"goes on from iteration {trainer.start} of {trainer.settings.iterations} in {out}")
    return trainer.run(**every)


def say_written(card: Card, folder: Path, console: Console) -> None:
    """Where the model lies, and how a server gets it."""
    console.print(f"wrote {card.id} to {folder}; register it with: twinset models add {folder}", soft_wrap=True)
