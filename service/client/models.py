"""Models: their cards."""

from __future__ import annotations

from service.client.client import Client
from service.client.effects import Flow, Request
from service.client.retries import parse, send
from service.client.views import Model, ModelList
from service.client.wire import path


def models(client: Client) -> Flow[list[Model]]:
    """The newest version of each model, by name."""
    return parse(ModelList, (yield from send(client.config, Request("GET", "/models")))).models


def model(client: Client, name: str) -> Flow[Model]:
    """A model's card, by its name, for the newest version, or name@version. Raises ApiProblem of status 404 if there is none."""
    return parse(Model, (yield from send(client.config, Request("GET", path("models", name)))))
