"""``twinset evaluate cosimgen``: measures a model folder, or a bundled model, on a dataset."""

from __future__ import annotations

import click
from rich.console import Console

from workers.evaluation.options import (
    CommonOptions,
    EvaluateCommand,
    check_system,
    common_options,
    find_model,
    fit_of,
    window_of,
)
from workers.evaluation.progress_bar import ProgressBars
from workers.training.command_support import errors_in_one_line


@click.command("cosimgen", cls=EvaluateCommand)
@common_options
@click.option("--count", default=200, show_default=True, type=click.IntRange(1), help="Twins for each way of asking.")
@click.option(
    "--by",
    type=click.Choice(["classes", "prompts", "both"]),
    default="both",
    show_default=True,
    help="How the model is asked.",
)
@click.option("--size", type=click.IntRange(1), help="One of the card's sizes [default: the card's].")
def cosimgen(common: CommonOptions, count: int, by: str, size: int | None) -> None:
    """Measure a CoSimGen model: what was asked against what was made, and whether image and mask agree.

    A small segmenter is trained on the real train split first (minutes on a CPU) and cached.
    """
    from model_store.loading import load_system
    from workers.data.training_set import TrainingSet
    from workers.evaluation.cosimgen_evaluate import MeasurementPlan, default_segmenters, evaluate
    from workers.evaluation.report import table, write_figures, write_on_card, write_sheet
    from workers.evaluation.sampling import sampling_for

    progress = ProgressBars()
    try:
        with errors_in_one_line():
            folder = find_model(common.model)
            check_system(folder, "cosimgen")
            system = load_system(folder, device=common.device, dtype=common.dtype)
            card = system.card
            size_px = size or card.default_size_px
            if size_px not in card.sizes_px:
                raise ValueError(f"{card.id} makes sizes {list(card.sizes_px)}, not {size_px}")
            settings = default_segmenters(card, size_px)
            if common.segmenter_epochs:
                settings = {
                    px: each.model_copy(update={"epochs": common.segmenter_epochs}) for px, each in settings.items()
                }
            plan = MeasurementPlan(
                count=count,
                ways=("classes", "prompts") if by == "both" else (by,),  # type: ignore[arg-type]
                sampling=sampling_for(card, steps=common.steps, guidance_scale=common.guidance, eta=common.eta),
                size_px=size_px,
                seed=common.seed,
                segmenters=settings,
                features=common.open_features(),
            )
            data = TrainingSet.open(common.data, window=window_of(card), fit=fit_of(card))
            common.out.mkdir(parents=True, exist_ok=True)  # refuses an unwritable folder before the work
            figures, made = evaluate(system, data, plan, common.cache, has_up=common.has_up, progress=progress)
            progress.close()
            written = [write_figures(figures, common.out)]
            written += [write_sheet(card, way, queries, twins, common.out) for way, (queries, twins) in made.items()]
            if common.record:
                written.append(write_on_card(figures, folder))
    finally:
        progress.close()
    console = Console()
    console.print(table(figures))
    console.print("wrote " + ", ".join(map(str, written)), soft_wrap=True)
