"""Datasets as arguments of commands: a folder, or an archive that is unpacked while it is read."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from service.datasets.reading.entry import DatasetSource
    from service.datasets.reading.report import ReadReport

READ_FORMATS = ("folders", "coco", "voc", "cityscapes", "yolo", "huggingface", "webdataset", "twins")
"""The formats of ``service.datasets.reading.opening``, repeated so that ``--help`` need not import it."""
T = TypeVar("T")


@contextmanager
def opened_dataset(path: Path, format: str | None = None) -> Iterator[DatasetSource]:
    """Opens the dataset at ``path``. Raises InvalidDataset, or ArchiveRefused for an archive that it cannot unpack."""
    from service.datasets.reading.opening import open_dataset
    from service.datasets.reading.unpacking import unpack

    if path.is_dir():
        yield open_dataset(path, format=format)
        return
    with tempfile.TemporaryDirectory(prefix="twinset-") as folder:
        unpacked = Path(folder) / plain_name(path)
        unpack(path, unpacked)
        yield open_dataset(unpacked, format=format)


def plain_name(path: Path) -> str:
    """The name of the folder, or of the archive without its suffix."""
    name = path.absolute().name
    for suffix in (".tar.gz", ".tgz", ".tar", ".zip") if not path.is_dir() else ():
        name = name.removesuffix(suffix)
    return name or "dataset"


def count_entries(sources: Iterable[DatasetSource]) -> int:
    """The number of entries in all sources, an upper bound of their items."""
    from service.datasets.reading.report import Findings

    return sum(1 for source in sources for _ in source.entries(Findings()))


def with_progress_bar(items: Iterable[T], total: int, doing: str) -> Iterator[T]:
    """Yields the items, with a progress bar on standard error that disappears at the end."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from service.cli.console import err

    columns = (
        TextColumn(f"{doing:<8}"),
        BarColumn(bar_width=32),
        TextColumn("[bold]{task.completed:.0f}[/] of {task.total:.0f}"),
    )
    with Progress(*columns, TimeRemainingColumn(), console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task(doing, total=total)
        for item in items:
            yield item
            bar.advance(task)


def print_skipped(label: str, report: ReadReport) -> None:
    """Prints on standard error how many entries of a dataset were skipped, and why."""
    from service.cli.console import err, escape

    if report.skipped:
        kinds = ", ".join(f"{group.count} {group.kind.replace('_', ' ')}" for group in report.faults if group.skipped)
        err.print(
            f"[yellow]Skipped[/] {report.skipped} of {escape(label)}: {kinds}. 'twinset datasets check' lists them.",
            soft_wrap=True,
        )
