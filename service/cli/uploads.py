"""``twinset uploads``: lists and deletes the masks that are stored on a server."""

from __future__ import annotations

import click

from service.cli.stored_datasets import open_client, url_option


@click.group()
def uploads() -> None:
    """List and delete the masks that are stored on a server.

    'twinset generate --mask' and the Python client upload masks before they ask for twins. Stored masks count for the
    tenant's TWINSET_LIMIT_STORED_BYTES; jobs keep the masks that they were given.
    """


@uploads.command(name="list")
@url_option
def list_uploads(url: str | None) -> None:
    """List the masks that are stored on a server."""
    from rich.table import Table

    from service.cli.console import out

    with open_client(url) as client:
        found = list(client.uploads())
    if not found:
        out.print("There are no uploads.")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    table.add_column("upload", overflow="fold")
    table.add_column("bytes", justify="right")
    table.add_column("uploaded", no_wrap=True)
    for one in found:
        when = "" if one.uploaded_at is None else f"{one.uploaded_at:%Y-%m-%d %H:%M}"
        table.add_row(one.upload, f"{one.bytes:,}", when)
    out.print(table)


@uploads.command()
@click.argument("ids", metavar="UPLOAD...", nargs=-1, required=True)
@url_option
def delete(ids: tuple[str, ...], url: str | None) -> None:
    """Delete masks by their ids from 'twinset uploads list'."""
    missing = []
    with open_client(url) as client:
        for upload in ids:
            if client.delete_upload(upload):
                click.echo(f"Deleted {upload}.")
            else:
                missing.append(upload)
    if missing:
        raise click.ClickException(
            f"there is no upload {', '.join(missing)}; 'twinset uploads list' shows those that there are"
        )
