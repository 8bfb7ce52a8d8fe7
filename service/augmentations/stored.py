"""Stored augmentation sets: the decided request, and the plan that follows from it wherever it is made again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from model_store.card import ModelCard
from service.augmentations.admission import AugmentationParameters, admit
from service.augmentations.matching import ClassMatch
from service.augmentations.plan import Plan, make_plan
from service.augmentations.request import AugmentationRequest
from service.augmentations.set_fit import SetFit
from service.augmentations.transforms.base import IGNORE, Segmentation
from service.augmentations.work import AugmentationWork
from service.datasets.splits import DEFAULT_SPLIT, canonical_split
from service.datasets.stored.dataset import StoredDataset
from service.datasets.stored.layout import StoredItem
from service.errors import InvalidRequest
from service.kit.validation import Faults
from service.registry.catalogue import Catalogue
from service.settings import Settings
from service.store.base import ObjectStore


class StoredPool:
    """A :class:`Pool` of items of a stored dataset."""

    def __init__(self, dataset: StoredDataset, match: ClassMatch, records: list[tuple[int, StoredItem]]) -> None:
        """``records`` are the items with their positions, as :func:`source_items` gives them."""
        self._dataset = dataset
        self._match = match
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    @cached_property
    def histograms(self) -> np.ndarray:
        """The shares ``(P, C)`` of the model's classes."""
        shares = np.zeros((len(self._records), len(self._dataset.classes)))
        for number, (_, record) in enumerate(self._records):
            for index, pixels in record.pixels.items():
                shares[number, index] = pixels / (record.width * record.height)
        return self._match.histograms(shares)

    def record(self, item: int) -> StoredItem:
        """The item's record in the dataset's index."""
        return self._records[item][1]

    def segmentation(self, item: int) -> Segmentation:
        """The item's class indices in the model's numbering, and its instances. Raises what the store raises."""
        labels = self._match.labels(self._dataset.labels(*self._records[item]))
        instances = self._dataset.instances(*self._records[item])
        # a class that is given to those around it has no objects of its own
        return Segmentation(labels, None if instances is None else np.where(labels == IGNORE, 0, instances))

    def caption(self, item: int) -> str | None:
        """The item's caption."""
        return self.record(item).caption


@dataclass(frozen=True, eq=False)
class PlannedAugmentation:
    """A set with its plan, and all that the plan was made from."""

    work: AugmentationWork
    card: ModelCard
    dataset: StoredDataset
    parameters: AugmentationParameters
    pool: StoredPool
    plan: Plan


def plan_augmentation(
    request: AugmentationRequest,
    dataset: StoredDataset,
    card: ModelCard,
    settings: Settings,
    faults: Faults | None = None,
    fit: SetFit | None = None,
) -> PlannedAugmentation:
    """Makes the plan of a request; ``faults`` are those found in it before, ``fit`` is one decided before.

    Raises :class:`InvalidRequest` with all faults, or what the store raises.
    """
    records = source_items(dataset, request.splits)
    parameters = admit(
        request,
        card,
        dataset.classes,
        sizes=[(record.width, record.height) for _, record in records],
        settings=settings,
        fit=fit,
        metres_per_px=dataset.about.metres_per_px,
        faults=faults,
    )
    pool = StoredPool(dataset, parameters.match, records)
    decided = request.model_copy(update={"seed": parameters.seed, "dry_run": False})
    # the webhook's address does not influence what is made
    given = decided.model_dump(mode="json", exclude_unset=True, exclude={"callback_url"})
    work = AugmentationWork(
        dataset=dataset.about.id,
        dataset_run=dataset.run,
        model=card.id,
        count=parameters.count,
        seed=parameters.seed,
        sampling=parameters.sampling,
        fit=parameters.fit,
        request={**given, "seed": parameters.seed},
    )
    return PlannedAugmentation(work, card, dataset, parameters, pool, make_plan(parameters, card, pool))


def reopen(work: AugmentationWork, store: ObjectStore, catalogue: Catalogue, settings: Settings) -> PlannedAugmentation:
    """Makes the plan of a stored set again. Raises TwinsetError if its model or dataset has been removed."""
    # an API of a newer version may have checked and stored members that do not change what the others mean
    known = {name: value for name, value in work.request.items() if name in AugmentationRequest.model_fields}
    request = AugmentationRequest.model_validate(known)
    if work.fit is None:
        request = request.model_copy(update={"size": work.sampling.size})
    dataset = StoredDataset.open(store, work.dataset_run)
    return plan_augmentation(request, dataset, catalogue.pinned(work.model_key).card, settings, fit=work.fit)


def source_items(dataset: StoredDataset, splits: Sequence[str] | None) -> list[tuple[int, StoredItem]]:
    """The items of these splits, with their positions in the dataset's index.

    Without ``splits``, the items that an export puts into "train" if there are any, so that no twin is made from test
    data; else all items. Raises :class:`InvalidRequest` if no item is in the splits.
    """
    records = list(dataset.records())
    found = [canonical_split(record.split) or DEFAULT_SPLIT for _, record in records]
    if splits is None:
        training = [entry for entry, split in zip(records, found, strict=True) if split == DEFAULT_SPLIT]
        return training or records
    wanted = {canonical_split(split) or DEFAULT_SPLIT for split in splits}
    chosen = [entry for entry, split in zip(records, found, strict=True) if split in wanted]
    if not chosen:
        has = ", ".join(sorted(set(found))) or "none"
        detail = f"no item of dataset {dataset.about.id} is in {', '.join(splits)}; its splits are: {has}"
        raise InvalidRequest(detail, errors=[{"pointer": "/splits", "detail": detail}])
    return chosen
