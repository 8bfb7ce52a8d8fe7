"""``twinset train base``: trains the text-to-image model on which the mask systems build."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console

from workers.training.command_run import train
from workers.training.options import (
    READ_FOLDER,
    data_option,
    list_option,
    part_option,
    require_part,
    training_command,
)


@training_command("base", "base")
@data_option(help="Images with captions.")
@list_option()
@part_option("--autoencoder", "Of `twinset train autoencoder`, or a Stable Diffusion's.")
@click.option(
    "--clip", type=READ_FOLDER, help="A folder with text_encoder/ and tokenizer/.  [default: all-MiniLM-L6-v2]"
)
def base(**options: Any) -> None:
    """Train latent text-to-image diffusion on the captions of a folder of images."""
    require_part("autoencoder")
    train("base", data={"data": "dataset"}, lists=("list",), parts=("autoencoder",), report=_report)


def _report(about: dict[str, Any], out: Path, console: Console) -> None:
    console.print(
        f"wrote {out}; train a mask system on it with: twinset train siamese --base {out} ...", soft_wrap=True
    )
