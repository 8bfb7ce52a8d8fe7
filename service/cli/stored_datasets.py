"""``twinset datasets push|list|show|delete``: manages the datasets of a server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from service.cli.sources import READ_FORMATS, exit_if_left_out, print_first, split_map_option

if TYPE_CHECKING:
    from service.client import DatasetRef, Twinset

url_option = click.option("--url", help="The server.  [default: TWINSET_PUBLIC_URL, else http://127.0.0.1:8000]")


@click.command()
@click.argument("name")
@click.argument("source", metavar="FOLDER_OR_ARCHIVE", type=click.Path(exists=True, path_type=Path))
@click.option("--format", "given", type=click.Choice(READ_FORMATS), help="Its format.  [default: detected]")
@split_map_option
@url_option
def push(name: str, source: Path, given: str | None, split_map: dict[str, str], url: str | None) -> None:
    """Upload a dataset to a server, as the next version of NAME.

    The server checks every file; what cannot be read is skipped and reported, and the exit code is then 1. A version
    never changes.
    """
    with open_client(url) as client:
        dataset = upload_and_wait(client, name, source, given, split_map)
        print_dataset(dataset)
    exit_if_left_out(dataset.info.skipped or 0)


@click.command(name="list")
@url_option
def list_datasets(url: str | None) -> None:
    """List the datasets of a server, with the newest version of each."""
    from rich.table import Table

    from service.cli.console import escape, out

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for heading in ("dataset", "state", "pairs", "classes"):
        table.add_column(heading, justify="right" if heading == "pairs" else "left", overflow="fold")
    with open_client(url) as client:
        found = list(client.datasets())
    for one in found:
        classes = ", ".join(entry.name for entry in one.info.classes or ())
        table.add_row(
            escape(one.id), one.state.value, "" if one.info.items is None else str(one.info.items), escape(classes)
        )
    if found:
        out.print(table)
    else:
        out.print("There are no datasets. Upload one with: twinset datasets push NAME FOLDER")


@click.command()
@click.argument("dataset", metavar="NAME[@VERSION]")
@url_option
def show(dataset: str, url: str | None) -> None:
    """Show a dataset of a server."""
    with open_client(url) as client:
        print_dataset(client.dataset(dataset))


@click.command()
@click.argument("dataset", metavar="NAME@VERSION")
@url_option
def delete(dataset: str, url: str | None) -> None:
    """Delete a version of a dataset, with all its files."""
    if "@" not in dataset:
        raise click.UsageError(f"{dataset} names no version; give one, like {dataset}@1")
    with open_client(url) as client:
        client.dataset(dataset).delete()
    click.echo(f"Deleted {dataset}.")


def open_client(url: str | None) -> Twinset:
    """A client of the server at ``url``, or of the settings' server. The API key comes only from the environment."""
    from service.client import Twinset
    from service.settings import read_settings

    settings = read_settings()
    key = settings.api_key.get_secret_value() if settings.api_key else None
    return Twinset(url or settings.public_url, api_key=key)


def upload_and_wait(
    client: Twinset, name: str, source: Path, given: str | None = None, split_map: dict[str, str] | None = None
) -> DatasetRef:
    """Uploads a dataset and waits until it is imported, with progress bars. Raises RunFailed with the reason."""
    return client.upload_dataset(name, source, format=given, split_map=split_map or None).wait()


def print_dataset(dataset: DatasetRef) -> None:
    """Prints a summary of a dataset. Exits with code 1 if its import failed."""
    from service.cli.console import escape, out

    info: Any = dataset.info
    if info.items is None:
        out.print(
            f"[bold]{escape(info.id)}[/]  {info.state.value}" + (f": {escape(info.reason)}" if info.reason else ""),
            soft_wrap=True,
        )
        raise click.exceptions.Exit(0 if not info.state.ended else 1)
    out.print(
        f"[green]✓[/] [bold]{escape(info.id)}[/]  {info.items} pair{'' if info.items == 1 else 's'}, {info.format}",
        soft_wrap=True,
    )
    swatches = "  ".join(
        f"[rgb({','.join(map(str, entry.colour))})]■[/] {escape(entry.name)}" for entry in info.classes
    )
    out.print(f"  [dim]{'Classes':<16}[/]", swatches, soft_wrap=True)
    print_import_faults(dataset)


def print_import_faults(dataset: DatasetRef) -> int:
    """Prints on standard error what the import of a dataset left out, and its warnings. Returns how many entries."""
    from service.cli.console import err, escape

    info = dataset.info
    if info.skipped:
        err.print(f"  [yellow]![/] {escape(info.reason or '')}", soft_wrap=True)
    for group in dataset.report().faults:
        if not group.skipped:
            err.print(
                f"  [yellow]![/] {group.kind.replace('_', ' ')}, {group.count}: {escape(group.meaning)}", soft_wrap=True
            )
        print_first((fault.file, fault.detail) for fault in group.first[: 3 if group.skipped else 0])
    return info.skipped or 0
