"""``twinset export``: writes twins and real datasets as one dataset in a training format, here or on a server."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from service.cli.sources import split_map_option

if TYPE_CHECKING:
    from service.datasets.mixing import Mix, MixPart
    from service.datasets.writing.about import ExportAbout
    from service.datasets.writing.card import CardTally
    from service.datasets.writing.options import ExportOptions
    from service.datasets.writing.skipped import SkippedItems

WRITTEN_FORMATS = ("folders", "coco", "voc", "cityscapes", "yolo", "huggingface", "webdataset")
"""The formats of ``service.datasets.writing.options``, repeated so that ``--help`` need not import it."""


def _names(ctx: click.Context, parameter: click.Parameter, text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise click.BadParameter("name at least one, as A,B", ctx, parameter)
    return names


def _renames(ctx: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> dict[str, str]:
    names: dict[str, str] = {}
    for text in texts:
        old, _, new = (part.strip() for part in text.partition("="))
        if not old or not new:
            raise click.BadParameter(f"{text!r} is not OLD=NEW", ctx, parameter)
        names[old] = new
    return names


def _shares(ctx: click.Context, parameter: click.Parameter, text: str | None) -> dict[str, float] | None:
    return None if text is None else named_shares(ctx, parameter, text, "is not of the form train=0.8,val=0.1,test=0.1")


def named_shares(ctx: click.Context, parameter: click.Parameter, text: str, otherwise: str) -> dict[str, float]:
    """Parses ``A=0.3,B=0.2`` into shares by name. Raises BadParameter with the message ``otherwise``."""
    shares: dict[str, float] = {}
    for name, _, share in (part.rpartition("=") for part in text.split(",")):
        if name.strip() in shares:
            raise click.BadParameter(f"{text!r} names {name.strip()!r} twice; give it one share", ctx, parameter)
        try:
            shares[name.strip()] = float(share)
        except ValueError:
            raise click.BadParameter(f"{text!r} {otherwise}", ctx, parameter) from None
    return shares


shares_option = click.option(
    "--split",
    "splits",
    callback=_shares,
    metavar="train=0.8,val=0.1,test=0.1",
    help="Draw new splits by source mask, so twins of one mask stay together.  [default: each item's own, or train]",
)

_CLASS_OPTIONS = (
    click.option(
        "--classes", "keep", callback=_names, metavar="A,B", help="Classes to keep, in their new order.  [default: all]"
    ),
    click.option(
        "--rename", multiple=True, callback=_renames, metavar="OLD=NEW", help="Rename a class; may be repeated."
    ),
    click.option(
        "--dropped",
        metavar="NAME",
        help="Class for the pixels of classes not kept.  [default: none, they are ignored]",
    ),
)


def class_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options ``keep``, ``rename`` and ``dropped``, which change the classes of what is written."""
    for option in reversed(_CLASS_OPTIONS):
        command = option(command)
    return command


def check_dropped(keep: tuple[str, ...] | None, dropped: str | None) -> None:
    """Raises a usage error for --dropped without --classes."""
    if dropped is not None and keep is None:
        raise click.UsageError("--dropped is for the classes that --classes does not name; give --classes too")


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--format", "wanted", required=True, type=click.Choice(WRITTEN_FORMATS), help="Format of the dataset.")
@click.option("--out", "target", required=True, type=click.Path(path_type=Path), help="A new folder, or a new *.zip.")
@class_options
@shares_option
@split_map_option
@click.option(
    "--split-seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the drawn splits."
)
@click.option(
    "--image-format",
    type=click.Choice(["png", "jpeg"]),
    default="png",
    show_default=True,
    help="Images already in this format are copied.",
)
@click.option("--polygons", is_flag=True, help="COCO: write polygons instead of run-length encodings.")
@click.option(
    "--shard-size",
    type=click.IntRange(1, 10**6),
    default=10_000,
    show_default=True,
    help="Maximum number of items per shard (huggingface, webdataset).",
)
@click.option("--title", help="Title of the dataset card.")
@click.option(
    "--url", help="The server, if it has the sources.  [default: TWINSET_PUBLIC_URL, else http://127.0.0.1:8000]"
)
def export(sources: tuple[str, ...], wanted: str, target: Path, url: str | None, **asked: Any) -> None:
    """Write twins and datasets as one dataset, in a format for training.

    Each SOURCE is a folder of 'twinset generate' (its items are marked synthetic, with model, seed, parameters and
    scores), or a real dataset in any of the formats, or an archive of one. Several sources are mixed, and their classes
    matched by name. Or all sources are on a server, as ids of jobs and augmentation sets and NAME@VERSION of datasets;
    then the server writes the export. manifest.jsonl says for each item whether it is real, and README.md describes the
    dataset. Items that cannot be read or written are left out and named; the exit code is then 1.
    """
    from service.cli.atomic_output import require_new

    require_new(target)
    title = asked.pop("title") or target.absolute().name.removesuffix(".zip")
    keep, rename, dropped = asked.pop("keep"), asked.pop("rename"), asked.pop("dropped")
    check_dropped(keep, dropped)
    folders = [Path(source) for source in sources if Path(source).exists()]
    options = _options(wanted, asked)
    if len(folders) < len(sources):
        from service.cli.server_export import export_by_server, parse_server_source

        if folders:
            elsewhere = next(source for source in sources if not Path(source).exists())
            raise click.UsageError(
                f"{folders[0]} is on this machine and {elsewhere} is not; sources must be all here, or all on a server"
            )
        parsed = [parse_server_source(source) for source in sources]
        changes = {
            "classes": list(keep) if keep else None,
            "rename": rename or None,
            "dropped": dropped,
            "title": title,
        }
        export_by_server(url, parsed, options, changes, target)
        return

    from service.cli.sources import opened_dataset, plain_name
    from service.datasets.mixing import Mix, MixPart

    with ExitStack() as stack:
        parts = [MixPart(plain_name(path), stack.enter_context(opened_dataset(path))) for path in folders]
        mix = Mix(parts, keep=keep, rename=rename, dropped=dropped)
        _write(mix, parts, options, _about(parts, title), target)


def _options(wanted: str, asked: dict[str, Any]) -> ExportOptions:
    """The export's options. Raises a usage error if they are invalid."""
    from pydantic import ValidationError

    from service.datasets.writing.options import ExportOptions

    values = {"splits": asked["splits"], "seed": asked["split_seed"], "split_map": asked["split_map"]}
    values |= {"shard_items": asked["shard_size"], "image_format": asked["image_format"], "polygons": asked["polygons"]}
    try:
        return ExportOptions(format=wanted, **values)
    except ValidationError as error:
        faults = "; ".join(str(fault["msg"]).removeprefix("Value error, ") for fault in error.errors())
        raise click.UsageError(f"--split: {faults}") from None


def _write(mix: Mix, parts: list[MixPart], options: ExportOptions, about: ExportAbout, target: Path) -> None:
    from service.cli.atomic_output import atomic_target
    from service.cli.sources import exit_if_left_out, print_notes, survey_splits, with_progress_bar
    from service.datasets.splits import check_writable
    from service.datasets.writing.card import CardTally
    from service.datasets.writing.export import export_files
    from service.datasets.writing.notes import export_notes
    from service.datasets.writing.sinks import FolderSink, write_all, zip_pieces
    from service.datasets.writing.skipped import SkippedItems

    tally, skipped = CardTally(), SkippedItems()
    lost_px = 0

    def count(prepared: Any) -> None:
        nonlocal lost_px
        tally.add(prepared)
        lost_px += prepared.lost.get("ignore_pixels", 0)

    splits = survey_splits((part.source for part in parts), options.split_map)
    if options.splits is None:
        check_writable(splits, options.split_map)
    with atomic_target(target) as (new, scratch, commit):
        items = with_progress_bar(mix, splits.total(), "Writing")
        files = export_files(items, mix.classes, options, about, on_item=count, scratch=scratch, skipped=skipped)
        try:
            if target.suffix.lower() == ".zip":
                with open(new, "xb") as out:
                    for piece in zip_pieces(files):
                        out.write(piece)
            else:
                new.mkdir()
                write_all(files, FolderSink(new))
        except OSError as error:
            raise click.ClickException(
                f"{target} cannot be written ({error.strerror or error}); check that the disk is not full"
            ) from None
        left_out = _print_skipped(mix, parts, skipped, options, lost_px)
        _check_sources(mix, parts)
        skipped.check_real(tally.of("real"))
        commit()
    _print_summary(target, options, mix, tally)
    print_notes(export_notes(options, tally.splits(), tally.renamed))
    exit_if_left_out(left_out)


def _check_sources(mix: Mix, parts: list[MixPart]) -> None:
    """Raises an error for a source of which nothing could be read."""
    empty = [part.label for part, report in zip(parts, mix.reports(), strict=True) if not report.items]
    if empty:
        raise click.ClickException(f"no pair of an image and its mask was found in {', '.join(empty)}")


def _about(parts: list[MixPart], title: str) -> ExportAbout:
    """The models and the real data, for the dataset card."""
    from service.datasets.reading.about import read_training_data
    from service.datasets.reading.twins import TwinsSource
    from service.datasets.writing.about import ExportAbout, ModelAbout

    twins = [part.source for part in parts if isinstance(part.source, TwinsSource)]
    shared = [source.parameters for source in twins]
    return ExportAbout(
        title=title,
        models=tuple({source.card.id: ModelAbout.of_card(source.card) for source in twins}.values()),
        # parameters that differ between jobs are in the manifest, for each item
        parameters={key: value for key, value in shared[0].items() if all(one.get(key) == value for one in shared)}
        if shared
        else {},
        seeds=tuple(sorted({seed for source in twins for seed in source.job_seeds})),
        real_data=tuple(
            read_training_data(part.source.root, part.label)
            for part in parts
            if not isinstance(part.source, TwinsSource)
        ),
    )


def _print_skipped(mix: Mix, parts: list[MixPart], skipped: SkippedItems, options: ExportOptions, lost_px: int) -> int:
    """Prints what was left out, while reading, mixing and writing. Returns how many items."""
    from service.cli.console import err
    from service.cli.sources import print_skipped, print_skipped_items

    count = sum(print_skipped(part.label, report) for part, report in zip(parts, mix.reports(), strict=True))
    count += print_skipped_items(mix.skipped.groups()) + print_skipped_items(skipped.groups())
    if lost_px:
        lost = f"{lost_px:,} ignored pixels, which {options.format} cannot express: they become background."
        err.print(f"[yellow]Lost[/] {lost}", soft_wrap=True)
    return count


def _print_summary(target: Path, options: ExportOptions, mix: Mix, tally: CardTally) -> None:
    from rich.text import Text

    from service.cli.console import escape, out

    total = sum(tally.items.values())
    out.print(
        f"[green]✓[/] [bold]{total}[/] pair{'' if total == 1 else 's'} as {options.format}: "
        f"{tally.of('synthetic')} synthetic, {tally.of('real')} real"
    )
    out.print(f"  [dim]{'Classes':<16}[/]", escape(", ".join(mix.classes.names)), soft_wrap=True)
    out.print(f"  [dim]{'Dataset':<16}[/]", Text(str(target)), soft_wrap=True)
    inside = "" if target.suffix.lower() == ".zip" else f"{target}/"
    out.print(f"  [dim]{'Description':<16}[/]", Text(f"{inside}README.md, {inside}manifest.jsonl"), soft_wrap=True)
