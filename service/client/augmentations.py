"""Augmentations: a dataset extended with twins by a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from service.client import exports
from service.client.client import BaseClient
from service.client.datasets import DatasetRun
from service.client.effects import Flow, Request
from service.client.paging import Page
from service.client.requests import page_of, posted
from service.client.retries import parse, send
from service.client.runs import ResourceKind, Run, check_end, until_ended
from service.client.views import AugmentationInfo, AugmentationInfoPage, ExportInfo, PlanInfo
from service.client.wire import path

if TYPE_CHECKING:
    from service.datasets.writing.options import Format

AUGMENTATIONS = ResourceKind(
    "augmentation", AugmentationInfo, lambda info: path("augmentations", info.id), "Augmenting", "twins"
)
_A_PAGE = 100


class AugmentationRun(Run[AugmentationInfo]):
    """An augmentation, of either client."""

    kind = AUGMENTATIONS

    @property
    def source(self) -> dict[str, str]:
        """What an export calls it."""
        return {"augmentation": self.id}


def augment(
    client: BaseClient,
    /,
    *,
    dataset: DatasetRun | str,
    model: str,
    count: int | None = None,
    ratio: float | None = None,
    idempotency_key: str | None = None,
    wait: bool = False,
    progress: bool = True,
    dry_run: bool = False,
    **options: Any,
) -> Flow[AugmentationInfo | PlanInfo]:
    """Extends a dataset with twins of a model, in rounds, until enough were good enough; the augmentation, accepted.

    ``count`` is how many twins to add, or ``ratio`` how many for each item of the dataset. Further options go as they
    are: ``balance``, ``masks``, ``min_confident_share``, ``budget``, ``seed``, ``name``, ``callback_url`` and so on.
    With ``dry_run`` nothing is made, and the answer is a :class:`PlanInfo` of what would be. ``wait`` holds until it
    has ended. Raises ApiProblem with every fault.
    """
    named = dataset if isinstance(dataset, str) else dataset.info.id
    given = {"dataset": named, "model": model, "count": count, "ratio": ratio, **options}
    body = {name: value for name, value in given.items() if value is not None}
    if dry_run:
        return parse(
            PlanInfo,
            (yield from send(client.config, Request("POST", "/augmentations", json={**body, "dry_run": True}))),
        )
    info = parse(AugmentationInfo, (yield from send(client.config, posted("/augmentations", body, idempotency_key))))
    if wait:
        info = yield from until_ended(client, AUGMENTATIONS, info, progress=progress, timeout=None)
        check_end(AUGMENTATIONS, info)
    return info


def augmentation(client: BaseClient, id: str) -> Flow[AugmentationInfo]:
    """The augmentation of this id. Raises ApiProblem of status 404 if there is none of yours."""
    return parse(AugmentationInfo, (yield from send(client.config, Request("GET", path("augmentations", id)))))


def augmentations_page(client: BaseClient, cursor: str | None) -> Flow[Page[AugmentationInfo]]:
    """Your augmentations, newest first."""
    page = parse(AugmentationInfoPage, (yield from send(client.config, page_of("/augmentations", cursor, _A_PAGE))))
    return Page(page.augmentations, page.next_cursor)


def export(run: AugmentationRun, /, *, format: Format, with_dataset: bool = True, **options: Any) -> Flow[ExportInfo]:
    """Writes the accepted twins as a set in a format, together with the dataset they extend unless ``with_dataset`` is
    false.

    ``options`` are those of :meth:`Twinset.export`.
    """
    if run.info.dataset is None:
        run.info = parse(AugmentationInfo, (yield from send(run._client.config, Request("GET", run.path))))
    real = [{"dataset": run.info.dataset}] if with_dataset and run.info.dataset else []
    return (yield from exports.export(run._client, sources=[*real, run.source], format=format, **options))
