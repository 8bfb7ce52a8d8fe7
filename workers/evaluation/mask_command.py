"""``twinset evaluate siamese`` and ``twinset evaluate pathdiff``: measure a model that follows masks on a dataset."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from model_store.card import ModelCard
    from workers.evaluation.mask_evaluate import Ablation, MaskPlan

_WAYS = {"mask": ("mask",), "captions": ("mask+caption",), "both": None}

_OPTIONS = (
    click.option("--count", type=click.IntRange(1), help="Test masks, a random choice [default: all]."),
    click.option(
        "--by",
        type=click.Choice(list(_WAYS)),
        default="both",
        show_default=True,
        help="Ask by the mask alone, by mask and caption, or as both, so far as card and captions allow.",
    ),
    click.option(
        "--label",
        help="Member of captions.jsonl with an image's label, for the text control [default: modality, if there].",
    ),
    click.option(
        "--text-count",
        default=120,
        show_default=True,
        type=click.IntRange(0),
        help="Images of the text control; 0: none.",
    ),
    click.option(
        "--classifier-epochs",
        type=click.IntRange(1),
        help="Shorter or longer training of the text control's classifier.",
    ),
    click.option(
        "--guidance-target",
        type=click.Choice(["text", "mask", "joint"]),
        help="One of the card's [default: the card's].",
    ),
    click.option("--ablations", multiple=True, metavar="MODEL ...", help="Further models to measure side by side."),
    click.argument("further", nargs=-1, metavar=""),
)


def mask_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options of :func:`measure` to a command; the words after ``--ablations A`` are ablations too."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command("siamese", cls=EvaluateCommand)
@common_options
@mask_options
def siamese(common: CommonOptions, **chosen: Any) -> None:
    """Measure a Siamese-Diffusion model: do its images follow their masks, and does its text decide what they show?

    A small segmenter and a classifier are trained on the real train split first (minutes on a CPU, more for large
    images) and cached. --ablations A B C compares further models on the same masks and seeds.
    """
    measure("siamese-diffusion", common, **chosen)


@click.command("pathdiff", cls=EvaluateCommand)
@common_options
@mask_options
def pathdiff(common: CommonOptions, **chosen: Any) -> None:
    """Measure a PathDiff model: do its images follow their masks, and does its text decide what they show?

    A small segmenter and a classifier are trained on the real train split first (minutes on a CPU, more for large
    images) and cached. --ablations A B C compares further models on the same masks and seeds.
    """
    measure("pathdiff", common, **chosen)


def measure(
    system_name: str, common: CommonOptions, *, ablations: tuple[str, ...], further: tuple[str, ...], **chosen: Any
) -> None:
    """Measures ``common.model``, which must be of the system, and writes figures, sheets and, if asked, the card."""
    from model_store.card import load_card
    from model_store.loading import load_system
    from workers.data.training_set import TrainingSet
    from workers.evaluation.mask_evaluate import evaluate_masks
    from workers.evaluation.mask_report import tables, write_sheets
    from workers.evaluation.report import write_figures, write_on_card

    if further and not ablations:
        raise click.UsageError(f"unexpected argument {further[0]!r}; list models to compare with after --ablations")
    progress = ProgressBars()
    try:
        with errors_in_one_line():
            folder = find_model(common.model)
            check_system(folder, system_name)
            others = [_ablation(name, common) for name in (*ablations, *further)]
            trained = load_card(folder)
            data = TrainingSet.open(common.data, window=window_of(trained), fit=fit_of(trained))
            system = load_system(folder, device=common.device, dtype=common.dtype)
            plan = _plan(system.card, common, **chosen)
            common.out.mkdir(parents=True, exist_ok=True)  # refuses an unwritable folder before the work
            figures, images = evaluate_masks(
                system, data, plan, common.cache, ablations=others, has_up=common.has_up, progress=progress
            )
            progress.close()
            written = [write_figures(figures, common.out)]
            written += write_sheets(system.card, figures, images, common.out)
            if common.record:
                written.append(write_on_card(figures, folder))
    finally:
        progress.close()
    console = Console()
    for table in tables(figures):
        console.print(table)
    console.print("wrote " + ", ".join(map(str, written)), soft_wrap=True)


def _ablation(name: str, common: CommonOptions) -> Ablation:
    from model_store.card import load_card
    from model_store.loading import load_system
    from workers.evaluation.mask_evaluate import Ablation

    folder = find_model(name)
    return Ablation(name, load_card(folder), lambda: load_system(folder, device=common.device, dtype=common.dtype))


def _plan(
    card: ModelCard,
    common: CommonOptions,
    *,
    count: int | None,
    by: str,
    label: str | None,
    text_count: int,
    classifier_epochs: int | None,
    guidance_target: Any,
) -> MaskPlan:
    from workers.evaluation.mask_evaluate import MaskPlan, default_classifier, default_segmenter
    from workers.evaluation.sampling import sampling_for

    segmenter, classifier = default_segmenter(card), default_classifier(card)
    if common.segmenter_epochs:
        segmenter = segmenter.model_copy(update={"epochs": common.segmenter_epochs})
    if classifier_epochs:
        classifier = classifier.model_copy(update={"epochs": classifier_epochs})
    return MaskPlan(
        sampling=sampling_for(
            card, steps=common.steps, guidance_scale=common.guidance, eta=common.eta, guidance_target=guidance_target
        ),
        seed=common.seed,
        segmenter=segmenter,
        classifier=classifier,
        ways=_WAYS[by],  # type: ignore[arg-type]
        count=count,
        label=label,
        text_count=text_count,
        features=common.open_features(),
    )
