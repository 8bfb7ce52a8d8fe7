"""``twinset train autoencoder``: trains the latent autoencoder of a base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console

from workers.training.command_run import train
from workers.training.options import READ_FILE, data_option, list_option, training_command


@training_command("autoencoder", "autoencoder")
@data_option(help="Masks are not needed; may be given again.", multiple=True)
@list_option()
@click.option("--features-weights", type=READ_FILE, help="A VGG16 in torchvision's naming, for vgg16-level6.")
def autoencoder(**options: Any) -> None:
    """Train an autoencoder of images, and measure it on the test split."""
    if options["list"] is not None and len(options["data"]) > 1:
        raise click.UsageError("--list names the stems of one --data; leave it out, or give one folder")
    train("autoencoder", data={"data": "dataset"}, lists=("list",), report=_report)


def _report(about: dict[str, Any], out: Path, console: Console) -> None:
    found = about["measured"]
    console.print(
        f"{found['psnr_db']:.2f} dB on {found['images']} images of the {about['measured_on']} split; latents of std "
        f"{found['latent_std']:.3f} are scaled by {about['network']['scaling_factor']:.4f}",
        soft_wrap=True,
    )
    console.print(f"wrote {out}; train a base on it with: twinset train base --autoencoder {out} ...", soft_wrap=True)
