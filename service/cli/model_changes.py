"""``twinset models alias|share|promote|delete``: what changes about registered models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from service.cli.model_place import open_models, place_options

if TYPE_CHECKING:
    from service.client.views import AliasInfo, ShareInfo


@click.command()
@click.argument("name")
@click.argument("alias", required=False)
@click.argument("version", required=False)
@click.option("--why", help="The reason, for the history.")
@click.option("--delete", is_flag=True, help="Delete the alias; its history stays.")
@place_options
def alias(
    name: str,
    alias: str | None,
    version: str | None,
    why: str | None,
    delete: bool,
    url: str | None,
    tenant: str | None,
) -> None:
    """Have ALIAS of the model NAME stand for VERSION.

    Without VERSION, show the alias with its history; without ALIAS, list the aliases. NAME@ALIAS then names the version
    in every request. Jobs that were accepted keep theirs.
    """
    if delete and (alias is None or version is not None):
        raise click.UsageError("--delete takes NAME and ALIAS")
    with open_models(url, tenant) as models:
        if alias is None:
            for each, stands_for in models.aliases(name).items():
                click.echo(f"{name}@{each}  {stands_for}")
        elif delete:
            models.delete_alias(name, alias, why=why)
            click.echo(f"Deleted {name}@{alias}.")
        elif version is None:
            _print_alias(models.alias(name, alias))
        else:
            _print_alias(models.set_alias(name, alias, version, why=why))


@click.command()
@click.argument("name")
@click.argument("tenants", nargs=-1)
@click.option("--all", "with_all", is_flag=True, help="All tenants, of now and later.")
@click.option("--revoke", is_flag=True, help="End the shares instead; what was accepted keeps working.")
@place_options
def share(
    name: str, tenants: tuple[str, ...], with_all: bool, revoke: bool, url: str | None, tenant: str | None
) -> None:
    """Share the model NAME with TENANTS, or with --all; without either, show with whom it is shared.

    They use it as OWNER:NAME, in all versions that are not candidates.
    """
    with open_models(url, tenant) as models:
        if not tenants and not with_all:
            found = models.shares(name)
        else:
            change = models.unshare_model if revoke else models.share_model
            found = change(name, list(tenants), all=with_all)
    _print_shares(name, found)


@click.command()
@click.argument("name", metavar="NAME@VERSION")
@place_options
def promote(name: str, url: str | None, tenant: str | None) -> None:
    """Promote a candidate, so that its name alone chooses it."""
    with open_models(url, tenant) as models:
        click.echo(f"{models.promote_model(name).id} is promoted.")


@click.command()
@click.argument("name", metavar="NAME@VERSION")
@place_options
def delete(name: str, url: str | None, tenant: str | None) -> None:
    """Delete a version of a model. Refused while something needs it, which is then named."""
    if "@" not in name:
        raise click.UsageError(f"{name} names no version; give one, like {name}@1.0.0")
    with open_models(url, tenant) as models:
        models.delete_model(name)
    click.echo(f"Deleted {name}.")


def _print_alias(found: AliasInfo) -> None:
    from service.cli.console import escape, out

    stands_for = f"stands for [bold]{found.version}[/]" if found.version else "is deleted"
    out.print(f"[bold cyan]{escape(found.model)}@{escape(found.alias)}[/] {stands_for}", soft_wrap=True)
    for change in found.history:
        moved = f"{change.from_version or 'none'} -> {change.to_version or 'none'}"
        by = f" by {change.changed_by}" if change.changed_by else ""
        why = f": {escape(change.why)}" if change.why else ""
        out.print(f"    [dim]{change.changed_at:%Y-%m-%d %H:%M}{by}[/]  {moved}{why}", soft_wrap=True)


def _print_shares(name: str, found: list[ShareInfo]) -> None:
    if not found:
        click.echo(f"{name} is shared with nobody.")
        return
    click.echo(f"{name} is shared with {', '.join(share.tenant or 'all tenants' for share in found)}.")
