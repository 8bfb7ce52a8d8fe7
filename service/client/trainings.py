"""Trainings: models and their parts, trained on the server's datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeVar

from service.client.client import BaseClient
from service.client.datasets import BaseDataset
from service.client.effects import Flow, Request
from service.client.paging import Page
from service.client.requests import page_request, post_request
from service.client.retries import parse, send
from service.client.runs import ResourceKind, Run, raise_if_failed, wait_until_ended
from service.client.views import CheckpointInfo, CheckpointInfoPage, TrainingInfo, TrainingInfoPage
from service.client.wire import path
from service.trainings.plan_values import TrainingPlan

TRAININGS = ResourceKind("training", TrainingInfo, lambda info: path("trainings", info.id), "Training", "iterations")
_TRAININGS_PER_PAGE, _CHECKPOINTS_PER_PAGE = 100, 500
_DATASETS = ("dataset", "text_dataset", "mask_dataset")
_PARTS = ("base", "autoencoder", "superres")
T = TypeVar("T", bound="BaseTrainingRun")


class BaseTrainingRun(Run[TrainingInfo]):
    """Base class of :class:`Training` and :class:`AsyncTraining`."""

    kind = TRAININGS

    @property
    def model(self) -> str | None:
        """The model: name@version once it is registered, until then its name; None for a part."""
        return self.info.model

    @property
    def part(self) -> str:
        """The part, as another training names it in ``base``, ``autoencoder`` or ``superres``."""
        return f"training/{self.id}"


def train(
    client: BaseClient,
    /,
    *,
    system: str,
    dataset: BaseDataset | str | None = None,
    settings: dict[str, Any] | None = None,
    idempotency_key: str | None = None,
    wait: bool = False,
    progress: bool = True,
    **options: Any,
) -> Flow[TrainingInfo]:
    """Starts a training on the server, and returns it. Example::

        tiles = client.upload_dataset("tiles", "mbrsc_dubai").wait()
        training = client.train(system="cosimgen", dataset=tiles, name="tiles", settings={"iterations": 8000}).wait()
        client.generate(model=training.model, classes=["Water"], count=100, wait=True).download("twins")

    ``system``: cosimgen, siamese-diffusion or pathdiff; or a part: superres, autoencoder or base. ``dataset``: a
    dataset of this client, its name, or name@version; PathDiff has ``text_dataset`` and ``mask_dataset``.
    ``settings``: options of the system, as ``twinset train`` has them. ``idempotency_key``: calls with the same key
    return the same training. ``wait``: wait until it has ended, with a bar if ``progress``. ``options`` are further
    members of ``POST /trainings``: ``preset``, ``fit``, ``seed``, ``parts``, ``base``, ``autoencoder``, ``superres``
    (trainings of parts), ``budget``, ``name``, ``evaluate``, ``promote_if``, ``keep_every``, ``callback_url``.

    Raises ApiProblem with every fault of the request.
    """
    body = _body(system=system, dataset=dataset, settings=settings, **options)
    info = parse(TrainingInfo, (yield from send(client.config, post_request("/trainings", body, idempotency_key))))
    if wait:
        info = yield from wait_until_ended(client, TRAININGS, info, progress=progress, timeout=None)
        raise_if_failed(TRAININGS, info)
    return info


def plan_training(
    client: BaseClient,
    /,
    *,
    system: str,
    dataset: BaseDataset | str | None = None,
    settings: dict[str, Any] | None = None,
    **options: Any,
) -> Flow[TrainingPlan]:
    """Returns what :meth:`train` would train with these arguments: its stages, what its data lack, and how long it
    takes on the machines that have measured its networks. Nothing is trained or stored."""
    body = _body(system=system, dataset=dataset, settings=settings, **options) | {"dry_run": True}
    return parse(TrainingPlan, (yield from send(client.config, Request("POST", "/trainings", json=body))))


def training(client: BaseClient, id: str) -> Flow[TrainingInfo]:
    """Returns the training with this id. Raises ApiProblem (404) if you have none."""
    return parse(TrainingInfo, (yield from send(client.config, Request("GET", path("trainings", id)))))


def trainings_page(client: BaseClient, cursor: str | None) -> Flow[Page[TrainingInfo]]:
    """Iterates over your trainings, newest first."""
    page = parse(
        TrainingInfoPage, (yield from send(client.config, page_request("/trainings", cursor, _TRAININGS_PER_PAGE)))
    )
    return Page(page.trainings, page.next_cursor)


def checkpoints_page(run: BaseTrainingRun, cursor: str | None) -> Flow[Page[CheckpointInfo]]:
    """Iterates over the training's checkpoints, oldest first."""
    request = page_request(f"{run.path}/checkpoints", cursor, _CHECKPOINTS_PER_PAGE)
    page = parse(CheckpointInfoPage, (yield from send(run._client.config, request)))
    return Page(page.checkpoints, page.next_cursor)


def pause(run: T) -> Flow[T]:
    """Stops the training at a checkpoint, and frees its worker. Returns the training itself."""
    return (yield from _control(run, "pause"))


def resume(run: T) -> Flow[T]:
    """Lets a paused training go on from its checkpoint. Returns the training itself."""
    return (yield from _control(run, "resume"))


def retry(run: BaseTrainingRun) -> Flow[TrainingInfo]:
    """Starts a training that goes on from this one's last checkpoint, if it failed or was cancelled; returns it."""
    return parse(TrainingInfo, (yield from send(run._client.config, post_request(f"{run.path}/retry", {}, None))))


def _control(run: T, action: Literal["pause", "resume"]) -> Flow[T]:
    run.info = parse(TrainingInfo, (yield from send(run._client.config, Request("POST", f"{run.path}/{action}"))))
    return run


def _body(**given: Any) -> dict[str, Any]:
    return {name: _named(name, value) for name, value in given.items() if value is not None}


def _named(member: str, value: Any) -> Any:
    """Datasets and trainings of this client by their names."""
    if member in _DATASETS and isinstance(value, BaseDataset):
        return value.info.id
    if member in _PARTS and isinstance(value, BaseTrainingRun):
        return value.part
    return str(value) if isinstance(value, Path) else value
