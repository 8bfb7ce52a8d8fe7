"""Support of the training commands: resuming a run, errors in one line, and the last message."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

if TYPE_CHECKING:
    from model_store.card import ModelCard
    from workers.training.trainer import Trainer


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Shows errors that a user can correct as a message without a traceback."""
    from pydantic import ValidationError
    from safetensors import SafetensorError

    from model_store.features import FeaturesUnavailable
    from model_store.interface import WeightsInvalid
    from model_store.text import TextEncoderMissing

    try:
        # cards, datasets, checkpoints and options that are wrong are all ValueErrors
        yield
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, each['loc'])) or error.title}: {each['msg']}" for each in error.errors())
        raise click.ClickException(wrong) from None
    except (OSError, SafetensorError) as error:
        raise click.ClickException(_of_files(error)) from None
    except (FeaturesUnavailable, TextEncoderMissing, WeightsInvalid, FloatingPointError, ValueError) as error:
        raise click.ClickException(str(error)) from None


def _of_files(error: Exception) -> str:
    """The message of a file error. safetensors reports a full disk in words alone."""
    reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
    if (
        getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        or "No space left" in reason
        or "quota exceeded" in reason
    ):
        return f"{reason}. Make room and give the same command again; the training resumes at its last checkpoint"
    return reason


def run_to_end(trainer: Trainer, out: Path, console: Console, **intervals: Any) -> int:
    """Runs to the end, from the checkpoint in ``out`` if there is one; returns the number of iterations done.

    ``intervals`` are those of checkpoints, samples and log lines.
    """
    if trainer.accelerator.is_main_process:
        for notice in trainer.notices:
            console.print(f"notice: {notice}", soft_wrap=True, markup=False)
    if trainer.start and trainer.accelerator.is_main_process:
        console.print(f"resuming at iteration {trainer.start} of {trainer.settings.iterations} in {out}")
    return trainer.run(**intervals)


def report_written(card: ModelCard, folder: Path, console: Console) -> None:
    """Prints where the model is, and how to register it."""
    console.print(f"wrote {card.id} to {folder}; register it with: twinset models add {folder}", soft_wrap=True)
