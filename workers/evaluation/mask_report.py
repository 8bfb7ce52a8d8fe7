"""Report of a measurement by masks: tables, and sheets of images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.table import Table

from model_store.card import ModelCard
from workers.evaluation.grid import Row, draw_grid, image_tile, mask_tile
from workers.evaluation.mask_evaluate import EvaluationImages, evenly_spaced
from workers.evaluation.mask_faithfulness import TARGET_RATIO
from workers.evaluation.report import add_realism, format_figure

ROWS_SHOWN = 12
LABEL_COLUMNS = 6
_NAMES = {"mask": "mask", "mask+caption": "mask and caption", "caption": "caption alone"}


def tables(figures: dict[str, Any]) -> Iterator[Table]:
    """The main figures of a model; a table for each kind."""
    yield mask_table(figures)
    if "text_control" in figures:
        yield control_table(figures["text_control"])
    if "ablations" in figures:
        yield ablation_table(figures)


def mask_table(figures: dict[str, Any]) -> Table:
    """Faithfulness and originality, one column for each way of requesting."""
    by = figures["by"]
    found = Table(
        title=f"{figures['model']} on {figures['data']['name']}, {figures['count']} test masks at "
        f"{figures['size_px']} px"
    )
    found.add_column("measure")
    for way in by:
        found.add_column(f"by {_NAMES[way]}", justify="right")

    def row(name: str, *path: str) -> None:
        found.add_row(name, *(format_figure(each, path) for each in by.values()))

    row("FS1: Dice of S(made) and the given mask", "fs1")
    row("FS2: Dice of S(made) and S(real)", "fs2")
    row("reference: Dice of S(real) and its mask", "reference")
    row(f"FS1 / reference (wanted: {TARGET_RATIO:.2f})", "ratio")
    row("  FS1, mean of the images' own", "fs1_mean_of_images")
    row("  FS2, mean of the images' own", "fs2_mean_of_images")
    add_realism(row, by)
    return found


def control_table(control: dict[str, Any]) -> Table:
    """The classifier's predictions for the images of each label, and its accuracy on real test images."""
    names = list(control["by_label"])
    real = control["on_real"]
    title = (
        f"text control: {control['label']} of {control['images']} images by {_NAMES[control['by']]}, "
        f"{control['accuracy']:.3f} classified right"
    )
    found = Table(title=title, caption=f"of {real['images']} real test images {real['accuracy']:.3f} classified right")
    found.add_column("requested")
    for name in names:
        found.add_column(f"classified: {name}", justify="right")
    found.add_column("right", justify="right")
    found.add_column("right on real", justify="right")
    for name, each in control["by_label"].items():
        counts = [str(each["predicted_as"][other]) for other in names]
        found.add_row(
            name, *counts, format_figure(each, ["accuracy"]), format_figure(real["by_label"][name], ["accuracy"])
        )
    return found


def ablation_table(figures: dict[str, Any]) -> Table:
    """The model and its ablations, a row each."""
    ways = list(figures["by"])
    found = Table(title=f"side by side, on the same {figures['count']} test masks with the same seeds")
    found.add_column("model")
    for way in ways:
        for name in ("FS1", "FS2", "FS1 / ref."):
            found.add_column(f"{name}, {way}", justify="right")
    for name, by in [(figures["model"], figures["by"]), *((each["name"], each["by"]) for each in figures["ablations"])]:
        found.add_row(name, *(format_figure(by, [way, key]) for way in ways for key in ("fs1", "fs2", "ratio")))
    return found


def write_sheets(card: ModelCard, figures: dict[str, Any], images: EvaluationImages, out: Path) -> list[Path]:
    """Writes the sheets: mask, real and made image by each way; images by label; one mask by several texts."""
    out.mkdir(parents=True, exist_ok=True)
    written = []
    real, masks = images.real, images.masks
    for way, made in images.made.items():
        rows = [
            Row([mask_tile(masks[i], card.classes), image_tile(real[i]), image_tile(made[i])])
            for i in evenly_spaced(len(masks), ROWS_SHOWN)
        ]
        found = figures["by"][way]
        line = (
            f"FS1 {format_figure(found, ['fs1'])}, FS2 {format_figure(found, ['fs2'])}, reference "
            f"{format_figure(found, ['reference'])}"
        )
        written.append(out / f"grid-{way}.png")
        title = f"{card.id}, by {_NAMES[way]}"
        draw_grid(rows, ["mask", "real", "made"], title=title, lines=[line], groups=3).save(written[-1])
    if images.by_label:
        rows = [
            Row([image_tile(image) for image in made[:LABEL_COLUMNS]], name) for name, made in images.by_label.items()
        ]
        control = figures["text_control"]
        line = (
            f"requested by {_NAMES[control['by']]}; {format_figure(control, ['accuracy'])} of {control['images']} "
            "classified right"
        )
        written.append(out / "grid-labels.png")
        draw_grid(rows, [""] * LABEL_COLUMNS, title=f"{card.id}, by {control['label']}", lines=[line]).save(written[-1])
    if images.by_text:
        rows = [Row([mask_tile(mask, card.classes), *map(image_tile, made)]) for mask, made in images.by_text]
        lines = [f"{number}: {text}" for number, text in enumerate(images.texts, start=1)]
        headings = ["mask", *(f"text {number}" for number in range(1, len(images.texts) + 1))]
        written.append(out / "grid-texts.png")
        draw_grid(rows, headings, title=f"{card.id}, one mask by several texts", lines=lines).save(written[-1])
    return written
