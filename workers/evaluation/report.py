"""Report of a measurement: measured.json, the figures on the card, sheets of twins, and a table."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from rich.table import Table

from model_store.card import ModelCard, load_card, write_card
from model_store.cosimgen.system import WEIGHTS_FILE
from service.kit.contact_sheet import MAX_TWINS, SheetTwin, draw_contact_sheet
from workers.evaluation.cosimgen_requests import Query, Way
from workers.evaluation.sampling import Twins


def write_figures(figures: dict[str, Any], out: Path) -> Path:
    """Writes ``measured.json``; returns its path."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "measured.json"
    path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return path


def write_on_card(figures: dict[str, Any], folder: Path) -> Path:
    """Writes the figures, with the hash of their weights, on the card in ``folder``; returns the card's path."""
    card = load_card(folder)
    weights = {"weights_sha256": card.files[WEIGHTS_FILE].sha256}
    write_card(folder, card.model_copy(update={"measured": {**figures, **weights}}))
    return folder / "card.json"


def write_sheet(card: ModelCard, way: Way, queries: Sequence[Query], twins: Twins, out: Path) -> Path:
    """Writes the first twins as PNG files under ``twins-{way}/``, and their sheet, whose path is returned."""
    folder = out / f"twins-{way}"
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for index, query in enumerate(queries[:MAX_TWINS]):
        image, mask = folder / f"{index:04d}.image.png", folder / f"{index:04d}.mask.png"
        Image.fromarray(twins.images[index]).save(image)
        Image.fromarray(twins.masks[index]).save(mask)
        drawn.append(SheetTwin(image, mask, query.prompt if way == "prompts" else ", ".join(query.names)))
    title = f"{card.id}, asked by {way}"
    path = out / f"grid-{way}.png"
    draw_contact_sheet(drawn, card.classes, title=title, subtitle=f"{len(queries)} twins of {twins.size_px} px").save(
        path
    )
    return path


def table(figures: dict[str, Any]) -> Table:
    """The main figures of a model, one column for each way of requesting."""
    found = Table(
        title=f"{figures['model']} on {figures['data']['name']}, {figures['count']} twins of {figures['size_px']} px"
    )
    found.add_column("measure")
    for way in figures["by"]:
        found.add_column(f"by {way}", justify="right")

    def row(name: str, *path: str) -> None:
        found.add_row(name, *(format_figure(each, path) for each in figures["by"].values()))

    row("queried classes found (PPV)", "ppv")
    row("found classes queried (converse)", "converse")
    row("confident pixels", "confident_share")
    for size in next(iter(figures["by"].values()))["agreement"]:
        row(f"agreement at {size} px, of real", "agreement", size, "ratio")
        row("  segmenter's mIoU on made", "agreement", size, "miou_made")
        row("  segmenter's mIoU on real", "agreement", size, "miou_real")
    add_realism(row, figures["by"])
    return found


def add_realism(row: Callable[..., None], by: dict[str, dict[str, Any]]) -> None:
    """Adds the rows that every measurement has: originality, diversity, and the Frechet distance if there is one."""
    row("distance to training images", "distance_to_training")
    row("  of real test images", "real_test_distance_to_training")
    row("diversity, of real", "diversity")
    for name in {each["frechet"]["features"] for each in by.values() if "frechet" in each}:
        row(f"Frechet distance to real ({name})", "frechet", "made_to_real")
        row("  between halves of real", "frechet", "real_half_to_real_half")


def format_figure(found: dict[str, Any], path: Sequence[str]) -> str:
    """The figure at ``path`` with three decimal places, or a dash if there is none."""
    value: Any = found
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return "-" if value is None else f"{value:.3f}"
