"""``twinset webhook-secret``: prints the secret with which a receiver verifies our webhooks."""

from __future__ import annotations

import click


@click.command("webhook-secret")
@click.option("--tenant", help="The tenant; each has its own secret.  [default: default]")
def webhook_secret(tenant: str | None) -> None:
    """Show the secret that webhooks are signed with.

    It has the format of Standard Webhooks, so their libraries can verify a webhook with it. If TWINSET_WEBHOOK_SECRET
    holds several secrets, each has its own line. All tenants' secrets are derived from that of the default tenant: do
    not give that one to other tenants.
    """
    from service.kit.tenants import DEFAULT_TENANT, TENANT_FORM, is_tenant
    from service.kit.webhook_secrets import written
    from service.settings import read_settings
    from service.webhooks.secrets import tenant_keys, webhook_keys

    if tenant is not None and not is_tenant(tenant):
        raise click.BadParameter(f"{tenant!r} is not a tenant's name, which has {TENANT_FORM}", param_hint="--tenant")
    for key in tenant_keys(webhook_keys(read_settings()), tenant or DEFAULT_TENANT):
        click.echo(written(key))
