"""``twinset export``: twins and real datasets in, one dataset out, in the format that training wants; here, or by a
server."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from service.datasets.mixing import Mix, MixPart
    from service.datasets.writing.about import ExportAbout
    from service.datasets.writing.options import ExportOptions

WRITTEN_FORMATS = ("folders", "coco", "voc", "cityscapes", "yolo", "huggingface", "webdataset")
"""Those of ``service.datasets.writing.options``, which ``--help`` does not have to import."""


def _names(ctx: click.Context, parameter: click.Parameter, text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise click.BadParameter("name at least one, as A,B", ctx, parameter)
    return names


def _renames(ctx: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    if wrong := next((text for text, (old, _, new) in zip(texts, pairs) if not old.strip() or not new.strip()), None):
        raise click.BadParameter(f"{wrong!r} is not OLD=NEW", ctx, parameter)
    return {old.strip(): new.strip() for old, _, new in pairs}


def _shares(ctx: click.Context, parameter: click.Parameter, text: str | None) -> dict[str, float] | None:
    return None if text is None else named_shares(ctx, parameter, text, "is not like train=0.8,val=0.1,test=0.1")


def named_shares(ctx: click.Context, parameter: click.Parameter, text: str, otherwise: str) -> dict[str, float]:
    """``A=0.3,B=0.2`` as shares by name. Raises BadParameter, with ``otherwise`` said of a text that is none."""
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
    help="Draw splits anew, by source mask: twins of one mask stay together.  [default: each item's own, or train]",
)


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option(
    "--format", "wanted", required=True, type=click.Choice(WRITTEN_FORMATS), help="How the dataset is laid out."
)
@click.option("--out", "target", required=True, type=click.Path(path_type=Path), help="A new folder, or a new *.zip.")
@click.option(
    "--classes", "keep", callback=_names, metavar="A,B", help="The classes to keep, in their new order.  [default: all]"
)
@click.option(
    "--rename", multiple=True, callback=_renames, metavar="OLD=NEW", help="Another name for a class; may be repeated."
)
@click.option(
    "--dropped",
    metavar="NAME",
    help="The class that takes the pixels of those not kept.  [default: none, they are ignored]",
)
@shares_option
@click.option(
    "--split-seed", type=click.IntRange(min=0), default=0, show_default=True, help="Another seed, another draw."
)
@click.option(
    "--image-format",
    type=click.Choice(["png", "jpeg"]),
    default="png",
    show_default=True,
    help="Images so already are copied.",
)
@click.option("--polygons", is_flag=True, help="COCO: outlines in place of run-length encodings.")
@click.option(
    "--shard-size",
    type=click.IntRange(1, 10**6),
    default=10_000,
    show_default=True,
    help="Items in a shard at most (huggingface, webdataset).",
)
@click.option("--title", help="What the dataset's card is headed.")
@click.option(
    "--url", help="The server of sources that are its own.  [default: TWINSET_PUBLIC_URL, else http://127.0.0.1:8000]"
)
def export(sources: tuple[str, ...], wanted: str, target: Path, url: str | None, **asked: Any) -> None:
    """Write twins and datasets as one dataset, in the format that you train from.

    A SOURCE is a folder of 'twinset generate' (its items are marked synthetic, with model, seed, parameters and
    scores), or a real dataset in any format that this writes, or an archive of one. Or all are a server's own: ids of
    jobs and augmentation sets, and NAME@VERSION of datasets; then the server writes the set. Several are mixed: their
    classes are matched by name. manifest.jsonl says of each item whether it is real, and README.md what the set was
    made from and is for.
    """
    from service.cli.atomic_output import require_new

    require_new(target)
    title = asked.pop("title") or target.absolute().name.removesuffix(".zip")
    keep, rename, dropped = asked.pop("keep"), asked.pop("rename"), asked.pop("dropped")
    if dropped is not None and keep is None:
        raise click.UsageError("--dropped is for the classes that --classes leaves out; give --classes too")
    folders = [Path(source) for source in sources if Path(source).exists()]
    options = _options(wanted, asked)
    if len(folders) < len(sources):
        from service.cli.server_export import export_by_server, named_source

        if folders:
            elsewhere = next(source for source in sources if not Path(source).exists())
            raise click.UsageError(
                f"{folders[0]} is here and {elsewhere} is not; either all sources are here, or all are a server's"
            )
        named = [named_source(source) for source in sources]
        kept = {"classes": list(keep) if keep else None, "rename": rename or None, "dropped": dropped, "title": title}
        export_by_server(url, named, options, kept, target)
        return

    from service.cli.sources import opened_dataset, plain_name
    from service.datasets.mixing import Mix, MixPart

    with ExitStack() as stack:
        parts = [MixPart(plain_name(path), stack.enter_context(opened_dataset(path))) for path in folders]
        mix = Mix(parts, keep=keep, rename=rename, dropped=dropped)
        _write(mix, parts, options, _about(parts, title), target)


def _options(wanted: str, asked: dict[str, Any]) -> ExportOptions:
    """The export's options. Raises a usage error for those that cannot be met."""
    from pydantic import ValidationError

    from service.datasets.writing.options import ExportOptions

    values = {"splits": asked["splits"], "seed": asked["split_seed"], "shard_items": asked["shard_size"]}
    try:
        return ExportOptions(format=wanted, image_format=asked["image_format"], polygons=asked["polygons"], **values)
    except ValidationError as error:
        faults = "; ".join(str(fault["msg"]).removeprefix("Value error, ") for fault in error.errors())
        raise click.UsageError(f"--split: {faults}") from None


def _write(mix: Mix, parts: list[MixPart], options: ExportOptions, about: ExportAbout, target: Path) -> None:
    from service.cli.atomic_output import whole_or_nothing
    from service.cli.sources import counted, with_bar
    from service.datasets.writing.export import export_files
    from service.datasets.writing.sinks import FolderSink, write_all, zip_pieces

    written: dict[str, int] = {"real": 0, "synthetic": 0}
    lost_px = 0

    def count(prepared: Any) -> None:
        nonlocal lost_px
        written[prepared.item.source] += 1
        lost_px += prepared.lost.get("ignore_pixels", 0)

    with whole_or_nothing(target) as (new, scratch, done):
        items = with_bar(mix, counted(part.source for part in parts), "Writing")
        files = export_files(items, mix.classes, options, about, on_item=count, scratch=scratch)
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
                f"{target} cannot be written ({error.strerror or error}); is there room on the disk?"
            ) from None
        _tell_left_out(mix, parts, options, lost_px)
        if not sum(written.values()):
            raise click.ClickException(
                f"there is no pair of an image and its mask in {', '.join(part.label for part in parts)}"
            )
        done()
    _tell(target, options, mix, written)


def _about(parts: list[MixPart], title: str) -> ExportAbout:
    """What the dataset's card says of the models and of the real data."""
    from service.datasets.reading.about import about_data
    from service.datasets.reading.twins import TwinsSource
    from service.datasets.writing.about import ExportAbout, ModelAbout

    twins = [part.source for part in parts if isinstance(part.source, TwinsSource)]
    shared = [source.parameters for source in twins]
    return ExportAbout(
        title=title,
        models=tuple({source.card.id: ModelAbout.of_card(source.card) for source in twins}.values()),
        # parameters that differ between jobs are each item's own, in the manifest
        parameters={key: value for key, value in shared[0].items() if all(one.get(key) == value for one in shared)}
        if shared
        else {},
        seeds=tuple(sorted({seed for source in twins for seed in source.job_seeds})),
        real_data=tuple(
            about_data(part.source.root, part.label) for part in parts if not isinstance(part.source, TwinsSource)
        ),
    )


def _tell_left_out(mix: Mix, parts: list[MixPart], options: ExportOptions, lost_px: int) -> None:
    from service.cli.console import err
    from service.cli.sources import tell_left_out

    for part, report in zip(parts, mix.reports(), strict=True):
        tell_left_out(part.label, report)
    if mix.copies:
        err.print(
            f"[yellow]Left out[/] {mix.copies}: the same image, byte for byte, as one of a source before.",
            soft_wrap=True,
        )
    if lost_px:
        said = (
            f"{lost_px:,} pixels are of no class, which {options.format} cannot say: to a trainer they are background."
        )
        err.print(f"[yellow]Lost[/] {said}", soft_wrap=True)


def _tell(target: Path, options: ExportOptions, mix: Mix, written: dict[str, int]) -> None:
    from rich.text import Text

    from service.cli.console import escape, out

    total = sum(written.values())
    out.print(
        f"[green]✓[/] [bold]{total}[/] pair{'' if total == 1 else 's'} as {options.format}: "
        f"{written['synthetic']} synthetic, {written['real']} real"
    )
    out.print(f"  [dim]{'Classes':<16}[/]", escape(", ".join(mix.classes.names)), soft_wrap=True)
    out.print(f"  [dim]{'Dataset':<16}[/]", Text(str(target)), soft_wrap=True)
    inside = "" if target.suffix.lower() == ".zip" else f"{target}/"
    out.print(f"  [dim]{'What is in it':<16}[/]", Text(f"{inside}README.md, {inside}manifest.jsonl"), soft_wrap=True)
