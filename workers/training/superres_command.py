"""``twinset train superres``: trains the network that doubles CoSimGen's pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from workers.training.command_run import train
from workers.training.options import READ_FILE, data_option, training_command


@training_command("superres", "superres")
@data_option()
@click.option("--features-weights", type=READ_FILE, help="A VGG16 in torchvision's naming, for vgg16-level6.")
def superres(**options: Any) -> None:
    """Train the super-resolution of CoSimGen's pairs, and measure it on the test split."""
    train("superres", data={"data": "dataset"}, report=_report)


def _report(about: dict[str, Any], out: Path, console: Console) -> None:
    table = Table("enlarged", "PSNR, dB", "bicubic", "mask errors, %", "nearest colour", "repeated")
    table.title = f"measured on the {about['measured_on']} split of {about['data']['name']}"
    for scale, found in about["measured"].items():
        shares = [
            f"{100 * found[name]:.2f}" for name in ("mask_error", "mask_error_nearest_colour", "mask_error_repeated")
        ]
        table.add_row(scale, f"{found['psnr_db']:.2f}", f"{found['psnr_bicubic_db']:.2f}", *shares)
    console.print(table)
    console.print(f"wrote {out / 'superres.safetensors'} and {out / 'superres.json'}", soft_wrap=True)
