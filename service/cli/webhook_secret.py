"""``twinset webhook-secret``: what a receiver needs to check that a callback is ours."""

from __future__ import annotations

import click


@click.command("webhook-secret")
@click.option("--tenant", help="Whose callbacks; each tenant's have a secret of their own.  [default: default]")
def webhook_secret(tenant: str | None) -> None:
    """Show the secret that callbacks are signed with, as libraries of Standard Webhooks take it.

    While TWINSET_WEBHOOK_SECRET holds several, there is a line for each. The default tenant's is the one that all
    others follow from: where there are other tenants, keep it to yourself.
    """
    from service.kit.tenants import DEFAULT_TENANT, TENANT_FORM, is_tenant
    from service.kit.webhook_secrets import written
    from service.settings import read_settings
    from service.webhooks.secrets import tenant_keys, webhook_keys

    if tenant is not None and not is_tenant(tenant):
        raise click.BadParameter(f"{tenant!r} is no tenant's name, which has {TENANT_FORM}", param_hint="--tenant")
    for key in tenant_keys(webhook_keys(read_settings()), tenant or DEFAULT_TENANT):
        click.echo(written(key))
