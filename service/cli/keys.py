"""``twinset keys``: API keys made, listed and revoked, in the store itself, so that no server need run for it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from service.auth.key_store import KeyStore

_DAYS_MOST = 3650


@click.group()
def keys() -> None:
    """Make, list and revoke API keys.

    They lie in the store of TWINSET_STORE_URL (by default the one of 'twinset up' in this folder), as hashes. A key
    stands for a tenant, and jobs and uploads are a tenant's own. As soon as there is one, the API asks everybody for a
    key.
    """


@keys.command()
@click.option("--tenant", required=True, help="Whose it is: lower-case letters, digits and hyphens.")
@click.option("--name", help="Your own words for the key.")
@click.option(
    "--expires-in",
    "days",
    type=click.IntRange(1, _DAYS_MOST),
    metavar="DAYS",
    help="After so many days it does not hold any more.  [default: it does not expire]",
)
def create(tenant: str, name: str | None, days: int | None) -> None:
    """Make a key, and print it: once, and never again.

    Clients send it as 'Authorization: Bearer KEY'; 'twinset generate' reads it from TWINSET_API_KEY. The jobs of a
    server that had no keys belong to the tenant 'default'.
    """
    from rich.markup import escape

    from service.cli.console import err

    key, record = _key_store().create(tenant, name=name, expires_in=None if days is None else timedelta(days=days))
    # The key alone goes to standard output, so that a shell can catch it without showing it.
    click.echo(key.text())
    until = f"until {record.expires_at:%Y-%m-%d %H:%M} UTC" if record.expires_at else "until it is revoked"
    err.print(
        f"[green]✓[/] Key [bold]{record.id}[/] of tenant [bold]{escape(record.tenant)}[/], good {until}. "
        "It is shown this once: the store has only its hash.",
        soft_wrap=True,
    )


@keys.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
def list_keys(as_json: bool) -> None:
    """List all keys, newest first: whose they are and whether they hold, never what they are."""
    key_store = _key_store()
    now = key_store.now()
    found = sorted(key_store.every(), key=lambda key: key.created_at, reverse=True)
    rows: list[dict[str, Any]] = [
        {**key.model_dump(mode="json", exclude={"format", "secret_sha256"}), "state": key.state(now)} for key in found
    ]
    if as_json:
        import json

        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return

    from service.cli.console import out

    if not rows:
        out.print("There is no key. Make one with 'twinset keys create --tenant NAME'.", soft_wrap=True)
        return

    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for heading in ("Id", "Tenant", "State", "Made", "Expires"):
        table.add_column(heading, no_wrap=True)
    table.add_column("Name", overflow="fold")
    for key, row in zip(found, rows, strict=True):
        style = "green" if row["state"] == "valid" else "red"
        expires = f"{key.expires_at:%Y-%m-%d}" if key.expires_at else ""
        made = f"{key.created_at:%Y-%m-%d}"
        table.add_row(
            f"[cyan]{key.id}[/]", key.tenant, f"[{style}]{row['state']}[/]", made, expires, escape(key.name or "")
        )
    out.print(table)


@keys.command()
@click.argument("key_id", metavar="ID")
def revoke(key_id: str) -> None:
    """Take a key back, for ever, by its id, which 'twinset keys list' shows.

    Servers that run hear of it within ten seconds. Signed links that were handed out before work until they expire.
    """
    from service.auth.key_store import SEEN_AT_LATEST_S
    from service.cli.console import out

    record = _key_store().revoke(key_id)
    out.print(
        f"[green]✓[/] Key [bold]{record.id}[/] of tenant [bold]{record.tenant}[/] is revoked. "
        f"Servers stop taking it within {SEEN_AT_LATEST_S:.0f} s.",
        soft_wrap=True,
    )


def _key_store() -> KeyStore:
    from service.auth.key_store import KeyStore
    from service.settings import read_settings
    from service.store.opening import open_store

    return KeyStore(open_store(read_settings()))
