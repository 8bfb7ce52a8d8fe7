"""``twinset datasets``: checks and counts datasets on this machine, and manages those of a server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from service.cli import stored_datasets
from service.cli.sources import READ_FORMATS, split_map_option

if TYPE_CHECKING:
    from service.datasets.classes import ClassList
    from service.datasets.reading.report import ReadReport
    from service.datasets.statistics_values import DatasetStatistics

_source = click.argument("source", metavar="FOLDER_OR_ARCHIVE", type=click.Path(exists=True, path_type=Path))
_format = click.option("--format", "given", type=click.Choice(READ_FORMATS), help="Its format.  [default: detected]")
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_MAX_IN_MATRIX = 12


@click.group()
def datasets() -> None:
    """Check datasets, count their classes, and upload them to a server.

    A dataset is a folder, or a zip or tar of one: images/ and masks/, COCO, Pascal VOC, Cityscapes, YOLO-seg,
    or the output of 'twinset generate' and 'twinset export'.
    """


for command in (stored_datasets.push, stored_datasets.list_datasets, stored_datasets.show, stored_datasets.delete):
    datasets.add_command(command)


@datasets.command()
@_source
@_format
@_json
@split_map_option
@click.option("--all", "every", is_flag=True, help="List every faulty file.  [default: the first 20 of each fault]")
def check(source: Path, given: str | None, as_json: bool, split_map: dict[str, str], every: bool) -> None:
    """Check a dataset and list its faulty files.

    Decodes every image and mask. The exit code is 1 if any of them is skipped.
    """
    from service.cli.sources import opened_dataset, survey_splits, with_progress_bar
    from service.datasets.reading.checking import read_items
    from service.datasets.reading.report import FIRST_OF_EACH, Findings

    with opened_dataset(source, given) as opened:
        findings = Findings(10**9 if every else FIRST_OF_EACH)
        total = survey_splits([opened], split_map).total()
        for _ in with_progress_bar(read_items(opened, findings, split_map), total, "Checking"):
            pass
        report, classes = findings.report(opened.format), opened.classes
    if as_json:
        import json

        said = {
            "source": str(source),
            "clean": report.clean,
            "classes": classes.table(),
            **report.model_dump(mode="json"),
        }
        click.echo(json.dumps(said, indent=2, ensure_ascii=False))
    else:
        _show_report(source, report, classes)
    if not report.clean or not report.items:
        raise click.exceptions.Exit(1)


@datasets.command()
@_source
@_format
@_json
@click.option(
    "--chart", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.png", help="Also draw the statistics."
)
def stats(source: Path, given: str | None, as_json: bool, chart: Path | None) -> None:
    """Count the classes of a dataset.

    Shows their shares of pixels and images, their sizes, which of them occur together, and their objects: by instance
    maps, and without one by connected regions. The chart also shows where in the image each class lies. The exit code
    is 1 if any file is skipped.
    """
    if chart is not None and (chart.suffix.lower() != ".png" or not chart.absolute().parent.is_dir()):
        raise click.UsageError(f"--chart {chart} must be a *.png in a folder that exists")

    from service.cli.sources import (
        exit_if_left_out,
        opened_dataset,
        plain_name,
        print_skipped,
        survey_splits,
        with_progress_bar,
    )
    from service.datasets.reading.checking import read_items
    from service.datasets.reading.report import Findings
    from service.datasets.statistics import StatisticsCollector

    with opened_dataset(source, given) as opened:
        findings, collector = Findings(), StatisticsCollector(opened.classes)
        total = survey_splits([opened], {}).total()
        for item in with_progress_bar(read_items(opened, findings), total, "Counting"):
            collector.add(item.labels, item.instances)
        report = findings.report(opened.format)
    statistics = collector.result()
    name = plain_name(source)
    if chart is not None:
        from service.datasets.statistics_chart import draw_statistics

        draw_statistics(statistics, title=name).save(chart, "PNG", optimize=True)
    if as_json:
        click.echo(statistics.model_dump_json(indent=2))
    else:
        _show_statistics(name, statistics, chart)
    exit_if_left_out(print_skipped(name, report))


def _show_report(source: Path, report: ReadReport, classes: ClassList) -> None:
    from service.cli.console import escape, out
    from service.datasets.statistics_values import objects_by

    splits = ", ".join(f"{name or 'no split'} {count}" for name, count in report.splits.items())
    found = f"{report.items} pair{'' if report.items == 1 else 's'}" + (f" ({splits})" if splits else "")
    out.print(f"[bold]{escape(str(source))}[/]  {report.format}, {escape(found)}", soft_wrap=True)
    swatches = "  ".join(
        f"[rgb({','.join(map(str, entry.colour))})]■[/] {escape(entry.name)}" for entry in classes.classes
    )
    out.print(f"[dim]Classes[/]  {swatches}")
    if report.items and report.instance_maps is not None:
        out.print(f"[dim]objects: {objects_by(report.instance_maps, report.items)}[/]", soft_wrap=True)
    for group in report.faults:
        mark = "[red]✗[/]" if group.skipped else "[yellow]![/]"
        out.print(
            f"\n{mark} [bold]{group.kind.replace('_', ' ')}[/], {group.count}: {escape(group.meaning)}", soft_wrap=True
        )
        for fault in group.first:
            out.print(f"    [cyan]{escape(fault.file)}[/]  {escape(fault.detail)}", soft_wrap=True)
        if group.count > len(group.first):
            out.print(f"    [dim]and {group.count - len(group.first)} more; --all shows them[/]")
    if report.skipped:
        out.print(f"\n[red]✗[/] [bold]{report.skipped}[/] skipped", soft_wrap=True)
    elif not report.items:
        out.print("[red]✗[/] No pair of an image and its mask was found")
    else:
        out.print(f"[green]✓[/] All [bold]{report.items}[/] are valid")


def _show_statistics(name: str, statistics: DatasetStatistics, chart: Path | None) -> None:
    from rich.table import Table
    from rich.text import Text

    from service.cli.console import escape, out
    from service.datasets.statistics_values import objects_by

    sizes = ", ".join(f"{count} of {size}" for size, count in list(statistics.image_sizes.items())[:3])
    images = f"{statistics.images} image{'' if statistics.images == 1 else 's'}"
    more = "" if len(statistics.image_sizes) <= 3 else f" and {len(statistics.image_sizes) - 3} other sizes"
    out.print(f"[bold]{escape(name)}[/]  {images}: {sizes}{more}", soft_wrap=True)
    out.print(f"[dim]{statistics.ignored_share:.1%} of pixels are ignored[/]")
    if statistics.instance_maps is not None:
        out.print(f"[dim]objects: {objects_by(statistics.instance_maps, statistics.images)}[/]", soft_wrap=True)
    out.print()
    order = sorted(statistics.classes, key=lambda one: one.entry.index)
    shown = sorted(sorted(order, key=lambda one: -one.images)[:_MAX_IN_MATRIX], key=lambda one: one.entry.index)
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for heading in ("", "class", "pixels", "images", "", "median size", "objects"):
        table.add_column(heading, justify="left" if heading in ("", "class") else "right", no_wrap=heading != "class")
    for one in order:
        colour = ",".join(map(str, one.entry.colour))
        table.add_row(
            f"[dim]{one.entry.index}[/] [rgb({colour})]■[/]",
            escape(one.entry.name),
            f"{one.pixel_share:.1%}",
            str(one.images),
            f"{one.image_share:.1%}",
            f"{one.size_median:.1%}" if one.images else "",
            "" if one.objects is None or one.entry.background else str(one.objects),
        )
    out.print(table)
    skipped = len(order) - len(shown)
    only = f" (the {len(shown)} most frequent classes)" if skipped else ""
    out.print(
        f"\n[dim]Of 100 images with the row's class, the number that also have the column's class{only}[/]",
        soft_wrap=True,
    )
    matrix = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    matrix.add_column("")
    for one in shown:
        matrix.add_column(str(one.entry.index), justify="right", no_wrap=True)
    for row in shown:
        chances = [statistics.cooccurrence[row.entry.index][column.entry.index] for column in shown]
        cells = [
            "[dim]·[/]" if chance is None else f"[dim]{100:.0f}[/]" if row is column else f"{100 * chance:.0f}"
            for chance, column in zip(chances, shown, strict=True)
        ]
        matrix.add_row(f"[dim]{row.entry.index}[/] {escape(row.entry.name)}", *cells)
    out.print(matrix)
    if chart is not None:
        out.print("\n[dim]Chart[/] ", Text(str(chart)), soft_wrap=True)
