"""``twinset train superres``: trains the network that doubles CoSimGen's pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click
from rich.console import Console
from rich.table import Table

from model_store.features import FEATURE_NETWORKS
from workers.training.command_support import errors_in_one_line
from workers.training.options import DATASET_HELP, OUT_OPTION, data_options, pop_data_options

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("superres")
@click.option("--data", required=True, metavar="DATASET", help=DATASET_HELP)
@OUT_OPTION
@click.option(
    "--preset",
    type=click.Choice(["small", "paper"]),
    default="small",
    show_default=True,
    help="small: 64 -> 256 px; paper: 128 -> 512 px.",
)
@click.option("--base-px", type=click.IntRange(8), help="The generator's size [default: the preset's].")
@click.option("--times", type=click.IntRange(1, 4), help="How often the size doubles [default: 2].")
@click.option("--iterations", type=click.IntRange(1))
@click.option("--batch-size", type=click.IntRange(1))
@click.option("--learning-rate", type=click.FloatRange(0, min_open=True))
@click.option("--noise", type=click.FloatRange(0), help="Largest noise on the low-resolution pair (range [-1, 1]).")
@click.option("--blur-px", type=click.FloatRange(0), help="Largest blur of the low-resolution pair.")
@click.option(
    "--chained", type=click.FloatRange(0, 1), help="How often the second doubling learns from the first one's output."
)
@click.option(
    "--features",
    type=click.Choice(FEATURE_NETWORKS),
    help="Feature network of the perceptual loss [default: random-conv3].",
)
@click.option("--features-weights", type=_FILE, help="A VGG16 in torchvision's naming, for vgg16-level6.")
@click.option("--perceptual-weight", type=click.FloatRange(0), help="Lambda; 0 trains by MSE alone.")
@data_options
@click.option("--seed", type=click.IntRange(0))
@click.option(
    "--precision", type=click.Choice(["no", "bf16", "fp16"]), default="bf16", show_default=True, help="Mixed precision."
)
@click.option(
    "--no-up/--has-up",
    "no_up",
    default=None,
    help="Whether scenes may be turned and flipped [default: dataset.json's].",
)
@click.option("--checkpoint-every", default=500, show_default=True, type=click.IntRange(1))
@click.option("--sample-every", default=1000, show_default=True, type=click.IntRange(1))
def superres(
    data: str,
    out: Path,
    preset: str,
    features_weights: Path | None,
    precision: Literal["no", "bf16", "fp16"],
    no_up: bool | None,
    checkpoint_every: int,
    sample_every: int,
    **changes: Any,
) -> None:
    """Train the super-resolution of CoSimGen's pairs, and measure it on the test split."""
    from workers.data.training_set import TrainingSet
    from workers.training.superres import train_superres
    from workers.training.superres_settings import preset_superres

    with errors_in_one_line():
        choices = pop_data_options(changes)
        dataset, settings = TrainingSet.open(data, window=choices.window), preset_superres(preset, **changes)
        if (fit := choices.fit(settings.base_px)) is not None:
            settings = settings.model_copy(update={"fit": fit})
        about = train_superres(
            dataset,
            out,
            settings,
            precision=precision,
            features_weights=features_weights,
            has_up=None if no_up is None else not no_up,
            input_options=choices.input,
            checkpoint_every=checkpoint_every,
            sample_every=sample_every,
        )
    if "measured" not in about:
        return
    table = Table("enlarged", "PSNR, dB", "bicubic", "mask errors, %", "nearest colour", "repeated")
    table.title = f"measured on the {about['measured_on']} split of {dataset.name}"
    for scale, found in about["measured"].items():
        shares = [
            f"{100 * found[name]:.2f}" for name in ("mask_error", "mask_error_nearest_colour", "mask_error_repeated")
        ]
        table.add_row(scale, f"{found['psnr_db']:.2f}", f"{found['psnr_bicubic_db']:.2f}", *shares)
    console = Console()
    console.print(table)
    console.print(f"wrote {out / 'superres.safetensors'} and {out / 'superres.json'}", soft_wrap=True)
