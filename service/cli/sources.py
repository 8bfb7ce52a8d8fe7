"""Datasets as commands take them: a folder, or an archive unpacked for as long as it is read."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from service.datasets.reading.entry import SourceOfEntries
    from service.datasets.reading.report import ReadReport

READ_FORMATS = ("folders", "coco", "voc", "cityscapes", "yolo", "huggingface", "webdataset", "twins")
"""Those of ``service.datasets.reading.opening``, which no ``--help`` has to import."""
T = TypeVar("T")


@contextmanager
def opened_dataset(path: Path, format: str | None = None) -> Iterator[SourceOfEntries]:
    """The dataset at ``path``. Raises InvalidDataset, or ArchiveRefused for an archive that is not unpacked."""
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
    """The folder's name, or the archive's without its suffixes."""
    name = path.absolute().name
    for suffix in (".tar.gz", ".tgz", ".tar", ".zip") if not path.is_dir() else ():
        name = name.removesuffix(suffix)
    return name or "dataset"


def counted(sources: Iterable[SourceOfEntries]) -> int:
    """How many items may come at most."""
    from service.datasets.reading.report import Findings

    return sum(1 for source in sources for _ in source.entries(Findings()))


def with_bar(items: Iterable[T], total: int, doing: str) -> Iterator[T]:
    """The items, with a progress bar on standard error (results go to standard output) that is gone at the end."""
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


def tell_left_out(label: str, report: ReadReport) -> None:
    """Says on standard error how many entries of a dataset were left out, and for what."""
    from service.cli.console import err, escape

    if report.left_out:
        kinds = ", ".join(f"{group.count} {group.kind.replace('_', ' ')}" for group in report.faults if group.left_out)
        err.print(
            f"[yellow]Left out[/] {report.left_out} of {escape(label)}: {kinds}. "
            f"'twinset datasets check' says which, and why.",
            soft_wrap=True,
        )
