"""Models: listing them, and reading a model's card."""

from __future__ import annotations

from service.client.client import BaseClient
from service.client.effects import Flow, Request
from service.client.retries import parse, send
from service.client.views import Model, ModelInfoList
from service.client.wire import path


def models(client: BaseClient) -> Flow[list[Model]]:
    """Lists the newest version of each model, by name. Example::

    for model in client.models():
        print(model.id, model.card.inputs, [entry.name for entry in model.card.classes])
    """
    return parse(ModelInfoList, (yield from send(client.config, Request("GET", "/models")))).models


def model(client: BaseClient, name: str) -> Flow[Model]:
    """Returns a model by its name (the newest version) or name@version. Raises ApiProblem (404) if there is none."""
    return parse(Model, (yield from send(client.config, Request("GET", path("models", name)))))
