"""Datasets as arguments of commands: a folder, or an archive that is unpacked while it is read."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from service.client.views import SkippedGroupInfo
    from service.datasets.reading.entry import DatasetSource
    from service.datasets.reading.report import ReadReport
    from service.datasets.writing.skipped import SkippedGroup

READ_FORMATS = (
    "folders", "coco", "datumaro", "voc", "cityscapes", "yolo", "huggingface", "webdataset", "twins", "medical",
)  # fmt: skip
"""The formats of ``service.datasets.reading.opening``, repeated so that ``--help`` need not import it."""
_ARCHIVE_SUFFIXES = (
    ".zip", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz", ".tar",
)  # fmt: skip
_FIRST_OF_EACH = 3
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
    for suffix in _ARCHIVE_SUFFIXES if not path.is_dir() else ():
        name = name.removesuffix(suffix)
    return name or "dataset"


def read_split_map(ctx: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> dict[str, str]:
    """Parses ``OLD=NEW,OLD=NEW``."""
    from service.datasets.splits import parse_split_map

    try:
        return parse_split_map(pair for text in texts for pair in text.split(","))
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, parameter) from None


split_map_option = click.option(
    "--split-map",
    multiple=True,
    callback=read_split_map,
    metavar="OLD=NEW,...",
    help="Rename splits; 'default' stands for items without one. May be repeated.  [default: splits keep their names]",
)


def survey_splits(sources: Iterable[DatasetSource], split_map: dict[str, str]) -> Counter[str | None]:
    """The number of entries of all sources by split. Raises InvalidDataset if the map names a split without items."""
    from service.datasets.reading.checking import survey
    from service.datasets.splits import check_split_map

    found: Counter[str | None] = Counter()
    for source in sources:
        found += survey(source)
    check_split_map(split_map, found)
    return found


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


def print_skipped(label: str, report: ReadReport) -> int:
    """Prints on standard error how many entries of a dataset were skipped, why, and the first of them.

    Returns how many.
    """
    from service.cli.console import err, escape

    if report.skipped:
        groups = [group for group in report.faults if group.skipped]
        kinds = ", ".join(f"{group.count} {group.kind.replace('_', ' ')}" for group in groups)
        err.print(
            f"[yellow]Skipped[/] {report.skipped} of {escape(label)}: {kinds}. 'twinset datasets check' lists them.",
            soft_wrap=True,
        )
        print_first((fault.file, fault.detail) for group in groups for fault in group.first[:_FIRST_OF_EACH])
    return report.skipped


def print_skipped_items(groups: Sequence[SkippedGroup | SkippedGroupInfo]) -> int:
    """Prints on standard error the items that an export skipped, by reason, and the first of them.

    Returns how many.
    """
    from service.cli.console import err, escape

    for group in groups:
        reason = group.reason.replace("_", " ")
        err.print(f"[yellow]Skipped[/] {group.count}, {reason}: {escape(group.meaning)}.", soft_wrap=True)
        print_first((item.name, item.detail) for item in group.first[:_FIRST_OF_EACH])
    return sum(group.count for group in groups)


def print_first(lines: Iterable[tuple[str, str]]) -> None:
    """Prints files on standard error, each with what is wrong with it."""
    from service.cli.console import err, escape

    for file, detail in lines:
        err.print(f"    [cyan]{escape(file)}[/]  {escape(detail)}", soft_wrap=True)


def print_notes(notes: Iterable[str]) -> None:
    """Prints the notes on an export on standard error."""
    from service.cli.console import err, escape

    for note in notes:
        err.print(f"[yellow]![/] {escape(note)}", soft_wrap=True)


def exit_if_left_out(count: int) -> None:
    """Ends the command with exit code 1 if anything was left out of what it read or wrote, as 'check' does."""
    if count:
        raise click.exceptions.Exit(1)
