"""Where ``twinset models`` looks: on a server, or in the store that this machine reaches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def place_options(command: Command) -> Command:
    """The options ``--url`` and ``--tenant``."""
    url = click.option(
        "--url", help="A server, asked with TWINSET_API_KEY.  [default: the store of TWINSET_STORE_URL itself]"
    )
    tenant = click.option("--tenant", help="In the store: the models of this tenant.  [default: those of all tenants]")
    return url(tenant(command))


@contextmanager
def open_models(url: str | None, tenant: str | None) -> Iterator[Any]:
    """The client of a server, or the same methods on the store of the settings. Raises a usage error for both."""
    if url is not None:
        if tenant is not None:
            raise click.UsageError("--tenant is of the store; on a server, the API key stands for the tenant")
        from service.cli.stored_datasets import open_client

        with open_client(url) as client:
            yield client
        return
    from service.cli.local_models import LocalModels
    from service.kit.tenants import TENANT_FORM, is_tenant
    from service.settings import read_settings
    from service.store.opening import open_store

    if tenant is not None and not is_tenant(tenant):
        raise click.UsageError(f"--tenant {tenant}: the name of a tenant has {TENANT_FORM}")
    yield LocalModels(open_store(read_settings()), tenant)
