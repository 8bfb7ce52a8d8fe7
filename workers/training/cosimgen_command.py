"""``twinset train cosimgen``: trains CoSimGen and writes the model folder."""

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
    MAX_GUIDANCE,
    OUT_OPTION,
    check_name,
    check_version,
    data_options,
    model_name,
    parse_aliases,
    pop_data_options,
)


@click.command("cosimgen")
@click.option("--data", required=True, metavar="DATASET", help=DATASET_HELP)
@OUT_OPTION
@click.option(
    "--preset",
    type=click.Choice(["small", "paper"]),
    default="small",
    show_default=True,
    help="small: 64 px, for CPUs; paper: 128 px.",
)
@click.option("--iterations", type=click.IntRange(1), help="[default: the preset's]")
@click.option("--batch-size", type=click.IntRange(2), help="Pairs an iteration, over all processes.")
@click.option("--learning-rate", type=click.FloatRange(0, min_open=True))
@click.option("--ema-decay", type=click.FloatRange(0, 1, max_open=True))
@click.option(
    "--adversarial-weight", type=click.FloatRange(0), help="Beta of the discriminator's loss; 0 trains without it."
)
@click.option(
    "--alignment-weight",
    type=click.FloatRange(0),
    help="Weight of the text's alignment to the classes; 0 is the paper's.",
)
@click.option(
    "--repeat-below",
    type=click.FloatRange(0, 1),
    help="Draw class sets rarer than this share of the images more often; 0 is the paper's.",
)
@click.option(
    "--presence-margin",
    type=click.FloatRange(1),
    help="Leave out pairs with a class within this factor of 0.5 %; 1 is the paper's.",
)
@click.option(
    "--noisy-share",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of timesteps from the noisiest fifth; 0.2 is the paper's.",
)
@data_options
@click.option("--seed", type=click.IntRange(0))
@click.option(
    "--precision", type=click.Choice(["no", "bf16", "fp16"]), default="bf16", show_default=True, help="Mixed precision."
)
@click.option("--cpu", is_flag=True, help="Train on the CPU even if there is a GPU.")
@click.option(
    "--no-up/--has-up",
    "no_up",
    default=None,
    help="Whether the scenes may be turned and flipped [default: as dataset.json says].",
)
@click.option(
    "--alias",
    "aliases",
    multiple=True,
    metavar="CLASS=WORD[,WORD]",
    help="Words for a class in prompts and requests; the first is the prompt's.",
)
@click.option(
    "--superres",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder of `twinset train superres`, put into the model.",
)
@click.option("--name", callback=check_name, help="The model's name [default: cosimgen-FOLDER].")
@click.option("--version", "model_version", default="1.0.0", show_default=True, callback=check_version)
@click.option("--title", help="One line on what the model makes.")
@click.option(
    "--guidance-scale", type=click.FloatRange(0, MAX_GUIDANCE), help="The card's default [default: 1, the paper's]."
)
@click.option(
    "--eta",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="The card's default: noise added at each step of sampling.",
)
@click.option("--note", "notes", multiple=True, help="A remark on the training, for the card.")
@click.option("--checkpoint-every", default=500, show_default=True, type=click.IntRange(1))
@click.option("--sample-every", default=1000, show_default=True, type=click.IntRange(1))
@click.option("--log-every", default=50, show_default=True, type=click.IntRange(1))
def cosimgen(
    data: str,
    out: Path,
    preset: str,
    precision: str,
    cpu: bool,
    no_up: bool | None,
    aliases: tuple[str, ...],
    superres: Path | None,
    name: str | None,
    model_version: str,
    title: str | None,
    guidance_scale: float | None,
    eta: float,
    notes: tuple[str, ...],
    **changes: Any,
) -> None:
    """Train CoSimGen on images and masks, and write OUT/model.

    A stopped run resumes at its checkpoint; a finished one only writes OUT/model again, so that a
    super-resolution trained meanwhile can be put in. On several GPUs: accelerate launch -m service.cli train cosimgen
    ...
    """
    from accelerate import Accelerator

    from workers.data.training_set import TrainingSet
    from workers.training.cosimgen import CoSimGenTrainer
    from workers.training.cosimgen_settings import preset_training
    from workers.training.export import export_model, open_superres

    console, intervals = Console(), pop_intervals(changes)
    with errors_in_one_line():
        choices = pop_data_options(changes)
        dataset = TrainingSet.open(data, window=choices.window).with_aliases(parse_aliases(aliases))
        settings = preset_training(preset, len(dataset.classes), **changes)
        if (fit := choices.fit(settings.network.size_px)) is not None:
            settings = settings.model_copy(update={"fit": fit})
        if superres is not None:
            # refuses one that does not fit before the training, not after it
            open_superres(superres, settings.network.size_px)
        accelerator = Accelerator(cpu=cpu, mixed_precision=precision)
        trainer = CoSimGenTrainer(
            dataset,
            out,
            settings,
            accelerator,
            has_up=None if no_up is None else not no_up,
            input_options=choices.input,
        )
        run_to_end(trainer, out, console, **intervals)
        if accelerator.is_main_process and settings.alignment_iterations and not trainer.aligned:
            left = trainer.align_text()
            console.print(f"aligned the text projection with all class sets: mean |Z - C|^2 is {left:.3f}")
        if accelerator.is_main_process:
            folder = out / "model"
            card = export_model(
                out,
                folder,
                trainer.data,
                name=name or model_name("cosimgen", dataset.plain_name),
                version=model_version,
                superres=superres,
                title=title,
                guidance_scale=guidance_scale,
                eta=eta,
                notes=notes,
            )
            report_written(card, folder, console)
