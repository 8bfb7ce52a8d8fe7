"""Augmentations: extending a dataset with twins according to a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from service.client import exports
from service.client.client import BaseClient
from service.client.datasets import BaseDataset
from service.client.effects import Flow, Request
from service.client.paging import Page
from service.client.requests import page_request, post_request
from service.client.retries import parse, send
from service.client.runs import ResourceKind, Run, raise_if_failed, wait_until_ended
from service.client.views import AugmentationInfo, AugmentationInfoPage, ExportInfo, PlanInfo
from service.client.wire import path

if TYPE_CHECKING:
    from service.datasets.writing.options import Format

AUGMENTATIONS = ResourceKind(
    "augmentation", AugmentationInfo, lambda info: path("augmentations", info.id), "Augmenting", "twins"
)
_PAGE_SIZE = 100


class BaseAugmentation(Run[AugmentationInfo]):
    """Base class of :class:`Augmentation` and :class:`AsyncAugmentation`."""

    kind = AUGMENTATIONS

    @property
    def source(self) -> dict[str, str]:
        """The augmentation as a source of an export."""
        return {"augmentation": self.id}


def augment(
    client: BaseClient,
    /,
    *,
    dataset: BaseDataset | str,
    model: str,
    count: int | None = None,
    ratio: float | None = None,
    idempotency_key: str | None = None,
    wait: bool = False,
    progress: bool = True,
    dry_run: bool = False,
    **options: Any,
) -> Flow[AugmentationInfo | PlanInfo]:
    """Starts an augmentation, which extends a dataset with twins of a model, and returns it. Example::

        plan = client.augment(dataset="tiles", model="cosimgen-dubai", ratio=2.0, balance="even", dry_run=True)
        print(*plan.plan.notes, sep="\\n")
        more = client.augment(dataset="tiles", model="cosimgen-dubai", ratio=2.0, balance="even", seed=plan.seed)
        more.wait().export(format="folders").download("extended")

    ``dataset``: a dataset of this client, its name, or name@version. ``count``: how many twins to add; or ``ratio``:
    how many for each item of the dataset. ``dry_run``: nothing is made, and the result is a :class:`PlanInfo`.
    ``idempotency_key``: calls with the same key return the same augmentation. ``wait``: wait until it has ended, with a
    bar if ``progress``. ``options`` are further members of ``POST /augmentations``: ``balance``, ``balance_by``,
    ``objects``, ``masks``, ``class_map``, ``splits``, ``prompt``, ``acceptance``, ``budget``, ``seed``, ``steps``,
    ``guidance_scale``, ``guidance_target``, ``eta``, ``fit``, ``size``, ``canvas``, ``name``, ``callback_url``.

    Twins are made in rounds until ``count`` of them are accepted, or the budget is spent. Raises ApiProblem with every
    fault of the request.
    """
    named = dataset if isinstance(dataset, str) else dataset.info.id
    given = {"dataset": named, "model": model, "count": count, "ratio": ratio, **options}
    body = {name: value for name, value in given.items() if value is not None}
    if dry_run:
        return parse(
            PlanInfo,
            (yield from send(client.config, Request("POST", "/augmentations", json={**body, "dry_run": True}))),
        )
    info = parse(
        AugmentationInfo, (yield from send(client.config, post_request("/augmentations", body, idempotency_key)))
    )
    if wait:
        info = yield from wait_until_ended(client, AUGMENTATIONS, info, progress=progress, timeout=None)
        raise_if_failed(AUGMENTATIONS, info)
    return info


def augmentation(client: BaseClient, id: str) -> Flow[AugmentationInfo]:
    """Returns the augmentation with this id. Raises ApiProblem (404) if you have none."""
    return parse(AugmentationInfo, (yield from send(client.config, Request("GET", path("augmentations", id)))))


def augmentations_page(client: BaseClient, cursor: str | None) -> Flow[Page[AugmentationInfo]]:
    """Iterates over your augmentations, newest first."""
    page = parse(
        AugmentationInfoPage, (yield from send(client.config, page_request("/augmentations", cursor, _PAGE_SIZE)))
    )
    return Page(page.augmentations, page.next_cursor)


def export(run: BaseAugmentation, /, *, format: Format, with_dataset: bool = True, **options: Any) -> Flow[ExportInfo]:
    """Starts an export of the accepted twins, together with the dataset they extend, and returns it.

    ``with_dataset=False`` exports the twins alone. ``options`` are those of :meth:`Twinset.export`.
    """
    if run.info.dataset is None:
        run.info = parse(AugmentationInfo, (yield from send(run._client.config, Request("GET", run.path))))
    real = [{"dataset": run.info.dataset}] if with_dataset and run.info.dataset else []
    return (yield from exports.export(run._client, sources=[*real, run.source], format=format, **options))
