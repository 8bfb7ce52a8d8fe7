"""``twinset train autoencoder``: trains the latent autoencoder of a base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console

from model_store.features import FEATURE_NETWORKS
from workers.training.command_support import errors_in_one_line, pop_intervals, run_to_end
from workers.training.options import DATASET_HELP, READ_FILE, data_options, pop_data_options, run_options


@click.command("autoencoder")
@click.option(
    "--data",
    "folders",
    required=True,
    multiple=True,
    metavar="DATASET",
    help=f"Masks are not needed; may be given again. {DATASET_HELP}",
)
@click.option("--list", "listing", type=READ_FILE, help="Stems to train on, in the place of train.txt.")
@click.option("--size", "size_px", required=True, type=click.IntRange(8), help="Side of the images.")
@click.option(
    "--preset", type=click.Choice(["small", "paper"]), default="small", show_default=True, help="small: f4, for CPUs."
)
@click.option(
    "--for",
    "paper",
    type=click.Choice(["siamese", "pathdiff"]),
    default="siamese",
    show_default=True,
    help="Whose shape the paper preset has: f8 or f4.",
)
@click.option(
    "--features",
    type=click.Choice(FEATURE_NETWORKS),
    help="Feature network of the perceptual loss [default: random-conv3].",
)
@click.option("--features-weights", type=READ_FILE, help="A VGG16 in torchvision's naming, for vgg16-level6.")
@click.option("--perceptual-weight", type=click.FloatRange(0), help="0 trains without it.")
@click.option("--kl-weight", type=click.FloatRange(0))
@run_options
@data_options
def autoencoder(
    folders: tuple[str, ...],
    listing: Path | None,
    out: Path,
    size_px: int,
    preset: str,
    paper: str,
    features_weights: Path | None,
    precision: str,
    cpu: bool,
    no_up: bool | None,
    **changes: Any,
) -> None:
    """Train an autoencoder of images, and measure it on the test split."""
    from accelerate import Accelerator

    from workers.data.training_set import TrainingSet
    from workers.training.autoencoder import AutoencoderTrainer, preset_autoencoder

    if listing is not None and len(folders) > 1:
        raise click.UsageError("--list names the stems of one --data; leave it out, or give one folder")
    console, intervals = Console(), pop_intervals(changes)
    with errors_in_one_line():
        choices = pop_data_options(changes)
        settings = preset_autoencoder(preset, size_px, paper=paper, fit=choices.fit(size_px), **changes)
        accelerator = Accelerator(cpu=cpu, mixed_precision=precision)
        data = [TrainingSet.open(folder, listing, images_only=True, window=choices.window) for folder in folders]
        has_up = None if no_up is None else not no_up
        trainer = AutoencoderTrainer(
            data,
            out,
            settings,
            accelerator,
            features_weights=features_weights,
            has_up=has_up,
            input_options=choices.input,
        )
        done = run_to_end(trainer, out, console, **intervals)
        if accelerator.is_main_process:
            about = trainer.finish(done, precision)
            found = about["measured"]
            console.print(
                f"{found['psnr_db']:.2f} dB on {found['images']} images of the {about['measured_on']} split; latents "
                "of std "
                f"{found['latent_std']:.3f} are scaled by {about['network']['scaling_factor']:.4f}",
                soft_wrap=True,
            )
            console.print(
                f"wrote {out}; train a base on it with: twinset train base --autoencoder {out} ...", soft_wrap=True
            )
