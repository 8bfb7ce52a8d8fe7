"""``twinset export`` of sources on a server: the server writes the export, and the command downloads it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from service.cli.sources import exit_if_left_out, print_notes, print_skipped_items
from service.cli.stored_datasets import open_client

if TYPE_CHECKING:
    from service.datasets.writing.options import ExportOptions

_JOB_OR_SET = re.compile(r"[ja][0-9a-z]{18}")
_DATASET = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}(@[1-9][0-9]*)?")


def parse_server_source(text: str) -> dict[str, str]:
    """Parses a source on a server: a job, an augmentation set or a dataset. Raises a usage error for anything else."""
    if _JOB_OR_SET.fullmatch(text):
        return {"job" if text[0] == "j" else "augmentation": text}
    if _DATASET.fullmatch(text):
        return {"dataset": text}
    raise click.UsageError(
        f"{text} is not a folder or archive on this machine, and not a source on a server: the id of a job (j...) or "
        "of an augmentation set (a...), or a dataset as NAME or NAME@VERSION"
    )


def export_by_server(
    url: str | None, sources: list[dict[str, str]], options: ExportOptions, changes: dict[str, Any], target: Path
) -> None:
    """Requests the export, shows its progress, and downloads it into ``target``; Ctrl-C cancels it.

    ``changes`` are the request's ``classes``, ``rename``, ``dropped`` and ``title``.
    """
    from rich.text import Text

    from service.cli.atomic_output import require_download_folder
    from service.cli.console import err, out

    require_download_folder(target)
    names = ("image_format", "splits", "seed", "polygons", "shard_items")
    request = {name: getattr(options, name) for name in names} | changes | {"split_map": options.split_map or None}
    with open_client(url) as client:
        export = client.export(
            sources=sources,
            format=options.format,
            **{name: value for name, value in request.items() if value is not None},
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
    print_notes(export.info.notes or ())
    out.print(f"  [dim]{'Dataset':<16}[/]", Text(str(target)), soft_wrap=True)
    out.print(f"  [dim]{'Description':<16}[/]", Text(f"{target}/README.md, {target}/manifest.jsonl"), soft_wrap=True)
    exit_if_left_out(print_skipped_items(export.info.skipped_details or ()))
