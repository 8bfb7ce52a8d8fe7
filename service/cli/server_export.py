"""``twinset export`` of what a server has: the server writes the set, and it is fetched."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from service.cli.stored_datasets import open_client

if TYPE_CHECKING:
    from service.datasets.writing.options import ExportOptions

_JOB_OR_SET = re.compile(r"[ja][0-9a-z]{18}")
_DATASET = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}(@[1-9][0-9]*)?")


def named_source(text: str) -> dict[str, str]:
    """A source by what a server calls it. Raises a usage error for what can be none."""
    if _JOB_OR_SET.fullmatch(text):
        return {"job" if text[0] == "j" else "augmentation": text}
    if _DATASET.fullmatch(text):
        return {"dataset": text}
    raise click.UsageError(
        f"{text} is no folder or archive here, and nothing that a server has: an id of a job (j...) or of an augmentation set (a...), "
        "or the name of a dataset, with @ and its version or without"
    )


def export_by_server(
    url: str | None, sources: list[dict[str, str]], options: ExportOptions, kept: dict[str, Any], target: Path
) -> None:
    """Has the set written, with a bar, and fetches it into ``target``; Ctrl-C cancels it."""
    from rich.text import Text

    from service.cli.atomic_output import require_fetched_to
    from service.cli.console import err, out

    require_fetched_to(target)
    names = ("image_format", "splits", "seed", "polygons", "shard_items")
    asked = {name: getattr(options, name) for name in names} | kept
    with open_client(url) as client:
        export = client.export(
            sources=sources,
            format=options.format,
            **{name: value for name, value in asked.items() if value is not None},
        )
        try:
            export.wait()
        except (KeyboardInterrupt, SystemExit):
            err.print(f"Export {export.id} is {export.cancel().state.value}.")
            raise
        export.download(target)
    info = export.info.model_dump()
    total = sum(info["items"].values())
    out.print(
        f"[green]✓[/] [bold]{total}[/] pair{'' if total == 1 else 's'} as {info['format']}: "
        f"{info['items']['synthetic']} synthetic, {info['items']['real']} real"
    )
    for reason, count in (info["left_out"] or {}).items():
        err.print(f"[yellow]Left out[/] {count}: {reason.replace('_', ' ')}")
    out.print(f"  [dim]{'Dataset':<16}[/]", Text(str(target)), soft_wrap=True)
    out.print(f"  [dim]{'What is in it':<16}[/]", Text(f"{target}/README.md, {target}/manifest.jsonl"), soft_wrap=True)
