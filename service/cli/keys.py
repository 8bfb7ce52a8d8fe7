"""``twinset keys``: creates, lists and revokes API keys directly in the store, without a server."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from service.auth.key_store import KeyStore

_MAX_DAYS = 3650


@click.group()
def keys() -> None:
    """Create, list and revoke API keys.

    The keys are stored as hashes in the store of TWINSET_STORE_URL (by default that of 'twinset up' in this folder).
    Each key belongs to a tenant, and a tenant sees only its own jobs and uploads. As soon as there is a key, all
    requests to the API need one.
    """


@keys.command()
@click.option("--tenant", required=True, help="The key's tenant: lower-case letters, digits and hyphens.")
@click.option("--name", help="A name for the key.")
@click.option(
    "--expires-in",
    "days",
    type=click.IntRange(1, _MAX_DAYS),
    metavar="DAYS",
    help="Days until the key expires.  [default: it does not expire]",
)
def create(tenant: str, name: str | None, days: int | None) -> None:
    """Create a key and print it, this one time.

    Clients send it as 'Authorization: Bearer KEY'; 'twinset generate' reads it from TWINSET_API_KEY. Jobs from before
    there were keys belong to the tenant 'default'.
    """
    from service.cli.console import err, escape

    key, record = _key_store().create(tenant, name=name, expires_in=None if days is None else timedelta(days=days))
    # only the key goes to standard output, so that a shell can capture it without showing it
    click.echo(key.text())
    until = f"until {record.expires_at:%Y-%m-%d %H:%M} UTC" if record.expires_at else "until it is revoked"
    err.print(
        f"[green]✓[/] Key [bold]{record.id}[/] of tenant [bold]{escape(record.tenant)}[/], valid {until}. "
        "It is shown only once: the store has only its hash.",
        soft_wrap=True,
    )


@keys.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_keys(as_json: bool) -> None:
    """List all keys, newest first, without their secrets."""
    key_store = _key_store()
    now = key_store.now()
    found = sorted(key_store.list(), key=lambda key: key.created_at, reverse=True)
    rows: list[dict[str, Any]] = [
        {**key.model_dump(mode="json", exclude={"format", "secret_sha256"}), "state": key.state(now)} for key in found
    ]
    if as_json:
        import json

        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return

    from rich.table import Table

    from service.cli.console import escape, out

    if not rows:
        out.print("There are no keys. Create one with 'twinset keys create --tenant NAME'.", soft_wrap=True)
        return

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for heading in ("Id", "Tenant", "State", "Created", "Expires"):
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
    """Revoke a key for good, by its id from 'twinset keys list'.

    Running servers refuse it within ten seconds. Signed links from before keep working until they expire.
    """
    from service.auth.key_store import REVOCATION_DELAY_S
    from service.cli.console import out

    record = _key_store().revoke(key_id)
    out.print(
        f"[green]✓[/] Key [bold]{record.id}[/] of tenant [bold]{record.tenant}[/] is revoked. "
        f"Servers refuse it within {REVOCATION_DELAY_S:.0f} s.",
        soft_wrap=True,
    )


def _key_store() -> KeyStore:
    from service.auth.key_store import KeyStore
    from service.settings import read_settings
    from service.store.opening import open_store

    return KeyStore(open_store(read_settings()))
