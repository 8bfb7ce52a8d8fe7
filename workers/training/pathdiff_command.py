"""``twinset train pathdiff``: trains PathDiff on a base, from unpaired text and masks, and writes the model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console

from model_store.card import GuidanceTarget
from workers.training.command_support import (
    errors_in_one_line,
    pop_intervals,
    report_written,
    run_to_end,
)
from workers.training.options import (
    DATASET_HELP,
    READ_FILE,
    base_options,
    captioned_run_options,
    data_options,
    model_name,
    model_options,
    parse_aliases,
    pop_data_options,
)


@click.command("pathdiff")
@click.option("--text-data", required=True, metavar="DATASET", help=f"Images with captions. {DATASET_HELP}")
@click.option(
    "--mask-data",
    required=True,
    metavar="DATASET",
    help="Images with masks; no image in common with --text-data.",
)
@click.option("--text-list", type=READ_FILE, help="Stems of --text-data, in the place of its train.txt.")
@click.option("--mask-list", type=READ_FILE, help="Stems of --mask-data, in the place of its train.txt.")
@base_options
@click.option(
    "--preset",
    type=click.Choice(["small", "paper"]),
    default="small",
    show_default=True,
    help="paper: 60 epochs in batches of 72.",
)
@captioned_run_options
@data_options
@model_options
@click.option(
    "--instances",
    type=click.Choice(["maps", "regions", "none"]),
    default="maps",
    show_default=True,
    help="The objects between which the model sees edges: those of --mask-data's instance maps, where it has any, "
    "or the connected regions of each class.",
)
@click.option(
    "--guidance-target",
    type=click.Choice(["text", "mask", "joint"]),
    default="text",
    show_default=True,
    help="What guidance strengthens by default; text is the paper's.",
)
def pathdiff(
    text_data: str,
    mask_data: str,
    text_list: Path | None,
    mask_list: Path | None,
    base_folder: Path,
    out: Path,
    size_px: int | None,
    chunks: int,
    preset: str,
    precision: str,
    cpu: bool,
    no_up: bool | None,
    aliases: tuple[str, ...],
    name: str | None,
    model_version: str,
    title: str | None,
    guidance_scale: float | None,
    guidance_target: GuidanceTarget,
    notes: tuple[str, ...],
    **changes: Any,
) -> None:
    """Train images for text, masks or both on two datasets that share no image, and write OUT/model.

    A stopped run resumes at its checkpoint; a finished one only writes OUT/model again. On several
    GPUs: accelerate launch -m service.cli train pathdiff ...
    """
    from accelerate import Accelerator

    from model_store.latent.loading import load_base
    from workers.data.training_set import TrainingSet
    from workers.training.latent_export import export_pathdiff
    from workers.training.pathdiff import PAPER_PX, PathDiffTrainer, preset_pathdiff

    console, intervals = Console(), pop_intervals(changes)
    with errors_in_one_line():
        choices = pop_data_options(changes)
        texts = TrainingSet.open(text_data, text_list, images_only=True, window=choices.window)
        masks = TrainingSet.open(mask_data, mask_list, window=choices.window).with_aliases(parse_aliases(aliases))
        base = load_base(base_folder, chunks=chunks)
        base = base.at_size(size_px or (PAPER_PX if preset == "paper" else base.size_px))
        images = len(texts.stems()) + len(masks.stems())
        settings = preset_pathdiff(preset, base, images, fit=choices.fit(base.size_px), **changes)
        accelerator = Accelerator(cpu=cpu, mixed_precision=precision)
        has_up = None if no_up is None else not no_up
        trainer = PathDiffTrainer(
            texts, masks, base, out, settings, accelerator, has_up=has_up, input_options=choices.input
        )
        run_to_end(trainer, out, console, **intervals)
        if accelerator.is_main_process:
            folder = out / "model"
            card = export_pathdiff(
                out,
                folder,
                base,
                trainer.text_data,
                trainer.mask_data,
                name=name or model_name("pathdiff", masks.plain_name),
                version=model_version,
                title=title,
                guidance_scale=guidance_scale,
                guidance_target=guidance_target,
                notes=notes,
            )
            report_written(card, folder, console)
