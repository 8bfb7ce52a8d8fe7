"""``twinset train siamese``: trains Siamese-Diffusion on a base and writes the model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console

from workers.training.command_support import (
    errors_in_one_line,
    pop_intervals,
    report_written,
    run_to_end,
)
from workers.training.options import (
    DATASET_HELP,
    base_options,
    captioned_run_options,
    data_options,
    model_name,
    model_options,
    parse_aliases,
    pop_data_options,
)


@click.command("siamese")
@click.option("--data", required=True, metavar="DATASET", help=f"With captions. {DATASET_HELP}")
@base_options
@click.option(
    "--preset",
    type=click.Choice(["small", "paper"]),
    default="small",
    show_default=True,
    help="paper: 384 px, 3000 iterations of 48.",
)
@click.option("--dhi/--no-dhi", default=True, help="Dense Hint Input, or ControlNet's hint network.")
@click.option("--consistency/--no-consistency", default=None, help="The noise consistency loss.")
@click.option(
    "--augmentation/--no-augmentation", default=None, help="Online augmentation. Without all three it is ControlNet."
)
@captioned_run_options
@data_options
@model_options
def siamese(
    data: str,
    base_folder: Path,
    out: Path,
    size_px: int | None,
    chunks: int,
    preset: str,
    dhi: bool,
    precision: str,
    cpu: bool,
    no_up: bool | None,
    aliases: tuple[str, ...],
    name: str | None,
    model_version: str,
    title: str | None,
    guidance_scale: float | None,
    notes: tuple[str, ...],
    **changes: Any,
) -> None:
    """Train images for masks on images, masks and captions, and write OUT/model.

    A stopped run resumes at its checkpoint; a finished one only writes OUT/model again. On several
    GPUs: accelerate launch -m service.cli train siamese ...
    """
    from accelerate import Accelerator

    from model_store.latent.loading import load_base
    from workers.data.training_set import TrainingSet
    from workers.training.latent_export import export_siamese
    from workers.training.siamese import PAPER_PX, SiameseTrainer, preset_siamese

    console, intervals = Console(), pop_intervals(changes)
    with errors_in_one_line():
        choices = pop_data_options(changes)
        dataset = TrainingSet.open(data, window=choices.window).with_aliases(parse_aliases(aliases))
        base = load_base(base_folder, chunks=chunks)
        base = base.at_size(size_px or (PAPER_PX if preset == "paper" else base.size_px))
        settings = preset_siamese(preset, base, dhi=dhi, fit=choices.fit(base.size_px), **changes)
        accelerator = Accelerator(cpu=cpu, mixed_precision=precision)
        trainer = SiameseTrainer(
            dataset,
            base,
            out,
            settings,
            accelerator,
            has_up=None if no_up is None else not no_up,
            input_options=choices.input,
        )
        run_to_end(trainer, out, console, **intervals)
        if accelerator.is_main_process:
            folder = out / "model"
            card = export_siamese(
                out,
                folder,
                base,
                trainer.data,
                name=name or model_name("siamese", dataset.plain_name),
                version=model_version,
                title=title,
                guidance_scale=guidance_scale,
                notes=notes,
            )
            report_written(card, folder, console)
