"""``twinset train base``: trains the text-to-image model on which the mask systems build."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console

from workers.training.command_support import errors_in_one_line, pop_intervals, run_to_end
from workers.training.options import (
    DATASET_HELP,
    READ_FILE,
    READ_FOLDER,
    captioned_run_options,
    data_options,
    pop_data_options,
)


@click.command("base")
@click.option("--data", required=True, metavar="DATASET", help=f"Images with captions. {DATASET_HELP}")
@click.option("--list", "listing", type=READ_FILE, help="Stems to train on, in the place of train.txt.")
@click.option(
    "--autoencoder",
    "autoencoder_folder",
    required=True,
    type=READ_FOLDER,
    help="Of `twinset train autoencoder`, or a Stable Diffusion's.",
)
@click.option("--size", "size_px", type=click.IntRange(8), help="Side of the images [default: the autoencoder's].")
@click.option(
    "--preset", type=click.Choice(["small", "paper"]), default="small", show_default=True, help="small: for CPUs."
)
@click.option(
    "--for",
    "paper",
    type=click.Choice(["siamese", "pathdiff"]),
    default="siamese",
    show_default=True,
    help="Whose U-Net the paper preset has.",
)
@click.option(
    "--clip", type=READ_FOLDER, help="A folder with text_encoder/ and tokenizer/ [default: all-MiniLM-L6-v2]."
)
@click.option(
    "--chunks",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="Chunks of text that the CLIP reads; PathDiff's are 2.",
)
@click.option(
    "--tokens",
    default=48,
    show_default=True,
    type=click.IntRange(1, 256),
    help="Tokens of a text that all-MiniLM-L6-v2 gives.",
)
@captioned_run_options
@data_options
def base(
    data: str,
    listing: Path | None,
    out: Path,
    autoencoder_folder: Path,
    size_px: int | None,
    preset: str,
    paper: str,
    clip: Path | None,
    chunks: int,
    tokens: int,
    precision: str,
    cpu: bool,
    no_up: bool | None,
    **changes: Any,
) -> None:
    """Train latent text-to-image diffusion on the captions of a folder of images."""
    from accelerate import Accelerator

    from model_store.latent.loading import load_autoencoder
    from model_store.latent.stable_diffusion import clip_tokens
    from model_store.latent.text import MiniLMTokens
    from workers.data.training_set import TrainingSet
    from workers.training.latent_base import BaseTrainer, preset_base

    console, intervals = Console(), pop_intervals(changes)
    with errors_in_one_line():
        choices = pop_data_options(changes)
        loaded = load_autoencoder(autoencoder_folder)
        size_px = size_px or loaded[2].get("settings", {}).get("size_px")
        if size_px is None:
            raise ValueError(f"{autoencoder_folder} does not say the size of its images; give it by --size")
        encoder = MiniLMTokens(tokens) if clip is None else clip_tokens(clip, chunks)
        settings = preset_base(
            preset, loaded[1], size_px, encoder.ref.dims, paper=paper, fit=choices.fit(size_px), **changes
        )
        accelerator = Accelerator(cpu=cpu, mixed_precision=precision)
        folder = TrainingSet.open(data, listing, images_only=True, window=choices.window)
        has_up = None if no_up is None else not no_up
        trainer = BaseTrainer(
            folder,
            out,
            settings,
            accelerator,
            autoencoder=loaded,
            tokens=encoder,
            has_up=has_up,
            input_options=choices.input,
        )
        done = run_to_end(trainer, out, console, **intervals)
        if accelerator.is_main_process:
            trainer.finish(done, precision)
            console.print(
                f"wrote {out}; train a mask system on it with: twinset train siamese --base {out} ...", soft_wrap=True
            )
