"""The figures on a model's card as a table that fits a screen: a row for each, a column for each way of requesting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich import box
from rich.table import Table

from service.cli.console import escape

MAX_ROWS = 16
_NAMES = {
    "ppv": "queried classes found",
    "converse": "found classes queried",
    "confident_share": "confident pixels",
    "fs1": "Dice with the given mask",
    "fs2": "Dice with the real image's mask",
    "reference": "Dice of real images with their masks",
    "ratio": "Dice with the given mask, of real",
    "agreement": "mIoU by a segmenter at {} px, of real",
    "distance_to_training": "distance to training images",
    "real_test_distance_to_training": "  of real test images",
    "diversity": "diversity, of real",
    "made_to_real": "Frechet distance to real",
    "real_half_to_real_half": "  between halves of real",
}
"""What people call the figures, in the order of the table."""


def figures_summary(measured: dict[str, Any]) -> str:
    """What was measured: on which data, with how many twins, sampled how."""
    data = measured.get("data")
    parts = []
    if isinstance(data, dict) and data.get("images"):
        parts.append(f"{data['images']} images of the {data.get('split', 'test')} split")
    if measured.get("count"):
        size = f" of {measured['size_px']} px" if measured.get("size_px") else ""
        parts.append(f"{measured['count']} twins{size}")
    sampling = measured.get("sampling")
    for name, value in (sampling if isinstance(sampling, dict) else {}).items():
        if value is not None:
            parts.append(f"{name.replace('_', ' ')} {_shown(value)}")
    return ", ".join(parts)


def figures_table(measured: dict[str, Any]) -> Table | None:
    """The main figures; None if the card has none."""
    by = measured.get("by")
    ways = {name: dict(_figures(found)) for name, found in by.items()} if isinstance(by, dict) else {}
    ways = {name: found for name, found in ways.items() if found} or {"": dict(_figures(measured))}
    names = sorted(dict.fromkeys(name for found in ways.values() for name in found), key=_place)
    if not names:
        return None
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, title_justify="left")
    table.add_column("measure")
    for way in ways:
        table.add_column(escape(f"by {way}") if way else "", justify="right")
    for name in names[:MAX_ROWS]:
        table.add_row(escape(_label(name)), *(_shown(found[name]) if name in found else "" for found in ways.values()))
    if len(names) > MAX_ROWS:
        table.add_row(f"and {len(names) - MAX_ROWS} more, with --json")
    return table


def _figures(found: Any) -> Iterator[tuple[tuple[str, ...], float]]:
    """The figures of one way of requesting, by name; those of each class, and settings, are left to --json."""
    for name, value in (found if isinstance(found, dict) else {}).items():
        if name in ("by", "seed", "count", "size_px") or name.endswith("_settings"):
            continue
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            yield (name,), value
        elif name == "agreement" and isinstance(value, dict):
            for size, each in value.items():
                if isinstance(each, dict) and isinstance(each.get("ratio"), (int, float)):
                    yield (name, str(size)), each["ratio"]
        elif name == "frechet" and isinstance(value, dict):
            for part in ("made_to_real", "real_half_to_real_half"):
                if isinstance(value.get(part), (int, float)):
                    yield (part,), value[part]


def _place(name: tuple[str, ...]) -> tuple[int, int]:
    known = list(_NAMES)
    return (known.index(name[0]) if name[0] in known else len(known), int(name[1]) if name[1:] else 0)


def _label(name: tuple[str, ...]) -> str:
    return _NAMES.get(name[0], name[0].replace("_", " ")).format(*name[1:])


def _shown(value: Any) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
