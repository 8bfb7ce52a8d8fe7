"""Models: listing them, reading a model's card, aliases, shares, candidates and deletion."""

from __future__ import annotations

from collections.abc import Sequence

from service.client.client import BaseClient
from service.client.effects import Flow, Request
from service.client.retries import parse, send
from service.client.views import AliasInfo, AliasInfoList, Model, ModelInfoList, ShareInfo, ShareInfoList
from service.client.wire import path


def models(client: BaseClient) -> Flow[list[Model]]:
    """Lists the newest version of each model, by name. Example::

    for model in client.models():
        print(model.id, model.card.inputs, [entry.name for entry in model.card.classes])
    """
    return parse(ModelInfoList, (yield from send(client.config, Request("GET", "/models")))).models


def model(client: BaseClient, name: str) -> Flow[Model]:
    """Returns a model by its name (the newest version), name@version or name@alias. Raises ApiProblem (404) if there
    is none. A model that another tenant shares with you is named ``owner:name``."""
    return parse(Model, (yield from send(client.config, Request("GET", path("models", name)))))


def promote_model(client: BaseClient, name: str) -> Flow[Model]:
    """Promotes a candidate, ``name@version``: from then on its name alone chooses it, if it is the newest."""
    return parse(Model, (yield from send(client.config, Request("POST", path("models", name, "promote")))))


def delete_model(client: BaseClient, name: str) -> Flow[None]:
    """Deletes a version, ``name@version``. Raises ApiProblem (409) with ``needed_by`` while something needs it."""
    yield from send(client.config, Request("DELETE", path("models", name)))


def aliases(client: BaseClient, name: str) -> Flow[dict[str, str]]:
    """Returns your aliases of a model, and the versions that they stand for."""
    return parse(
        AliasInfoList, (yield from send(client.config, Request("GET", path("models", name, "aliases"))))
    ).aliases


def alias(client: BaseClient, name: str, alias: str) -> Flow[AliasInfo]:
    """Returns an alias with its history: who moved it, when, from which version to which, and why."""
    request = Request("GET", path("models", name, "aliases", alias))
    return parse(AliasInfo, (yield from send(client.config, request)))


def set_alias(client: BaseClient, name: str, alias: str, version: str, *, why: str | None = None) -> Flow[AliasInfo]:
    """Has an alias stand for a version from now on, and returns it with its history. Example::

        client.set_alias("polyps", "stable", "1.2.0", why="better Dice")
        client.generate(model="polyps@stable", mask="mask.png", count=1)

    Jobs and sets that were accepted before keep the version that the alias stood for.
    """
    body = {"version": version, **({} if why is None else {"why": why})}
    request = Request("PUT", path("models", name, "aliases", alias), json=body)
    return parse(AliasInfo, (yield from send(client.config, request)))


def delete_alias(client: BaseClient, name: str, alias: str, *, why: str | None = None) -> Flow[None]:
    """Deletes an alias. Its history stays."""
    params = {} if why is None else {"why": why}
    # sent again after a lost answer, it would be reported as missing
    request = Request("DELETE", path("models", name, "aliases", alias), params, repeatable=False)
    yield from send(client.config, request)


def shares(client: BaseClient, name: str) -> Flow[list[ShareInfo]]:
    """Returns with whom you share a model of yours."""
    return parse(ShareInfoList, (yield from send(client.config, Request("GET", path("models", name, "shares"))))).shares


def share_model(
    client: BaseClient, name: str, tenants: Sequence[str] = (), *, all: bool = False
) -> Flow[list[ShareInfo]]:
    """Shares a model of yours with some tenants, or with all; returns all its shares. They name it ``you:name``."""
    return (yield from _change_shares(client, name, "share", tenants, all))


def unshare_model(
    client: BaseClient, name: str, tenants: Sequence[str] = (), *, all: bool = False
) -> Flow[list[ShareInfo]]:
    """Ends shares of a model, and returns those that are left. What was accepted before keeps working."""
    return (yield from _change_shares(client, name, "unshare", tenants, all))


def _change_shares(
    client: BaseClient, name: str, verb: str, tenants: Sequence[str], with_all: bool
) -> Flow[list[ShareInfo]]:
    named = [tenants] if isinstance(tenants, str) else list(tenants)
    request = Request("POST", path("models", name, verb), json={"tenants": named, "all": with_all})
    return parse(ShareInfoList, (yield from send(client.config, request))).shares
