"""Models: their cards."""

from __future__ import annotations

from service.client.client import BaseClient
from service.client.effects import Flow, Request
from service.client.retries import parse, send
from service.client.views import Model, ModelInfoList
from service.client.wire import path


def models(client: BaseClient) -> Flow[list[Model]]:
    """The newest version of each model, by name."""
    return parse(ModelInfoList, (yield from send(client.config, Request("GET", "/models")))).models


def model(client: BaseClient, name: str) -> Flow[Model]:
    """A model's card, by its name, for the newest version, or name@version. Raises ApiProblem of status 404 if there is
    none."""
    return parse(Model, (yield from send(client.config, Request("GET", path("models", name)))))
