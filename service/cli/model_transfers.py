"""``twinset models add|import|export``: models into a store or a server, and out of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from service.cli.model_place import open_models, place_options

candidate_option = click.option(
    "--candidate", is_flag=True, help="Register a candidate: its name alone does not choose it until it is promoted."
)


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@candidate_option
@place_options
def add(folder: Path, candidate: bool, url: str | None, tenant: str | None) -> None:
    """Register the model in FOLDER.

    FOLDER holds a card.json and the *.safetensors that it names. Every file is checked against the card's sha256.
    A registered version never changes. Without --url, the model goes into the store itself, for all tenants unless
    --tenant names one; with it, the model is sent to the server, and is yours.
    """
    _register(folder, candidate, url, tenant)


@click.command(name="import")
@click.argument("archive", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@candidate_option
@place_options
def import_model(archive: Path, candidate: bool, url: str | None, tenant: str | None) -> None:
    """Register the model in ARCHIVE, a tar that 'twinset models export' has written."""
    _register(archive, candidate, url, tenant)


@click.command()
@click.argument("name")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="A new file *.tar, or a new folder for the model."
)
@place_options
def export(name: str, out: Path, url: str | None, tenant: str | None) -> None:
    """Write the model NAME, NAME@VERSION or NAME@ALIAS to a tar or a folder, with its hashes."""
    with open_models(url, tenant) as models:
        models.download_model(name, out)
    click.echo(f"Wrote {out}.")


def _register(path: Path, candidate: bool, url: str | None, tenant: str | None) -> None:
    from service.cli.console import out

    with open_models(url, tenant) as models:
        found: Any = models.add_model(path, candidate=candidate)
    model, is_new = found if isinstance(found, tuple) else (found, True)
    if not is_new:
        out.print(
            f"[bold cyan]{model.id}[/] is registered already, with the same card and weights. Nothing to do.",
            soft_wrap=True,
        )
        return
    kind = " as a candidate" if model.candidate else ""
    out.print(
        f"[green]Added[/] [bold cyan]{model.id}[/]{kind}. Try: twinset generate --model {model.id} --help",
        soft_wrap=True,
    )
