"""Evaluation of CoSimGen: faithfulness to the request, and agreement of image and mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model_store.card import ModelCard
from model_store.features import FeatureNetwork
from model_store.interface import System
from workers.data.pixels import present_classes
from workers.data.training_set import TrainingSet
from workers.evaluation.cosimgen_requests import (
    Query,
    Way,
    check_same_classes,
    draw_queries,
    queryable_mask,
)
from workers.evaluation.metrics import (
    class_ious,
    confident_share,
    confusion_matrix,
    converse_predicted_value,
    mean_iou,
    positive_predicted_value,
)
from workers.evaluation.realism import COPY_CHECK_PX, can_halve, frechet, originality, rounded
from workers.evaluation.sampling import SamplingSettings, Twins, make_twins
from workers.evaluation.segmenter import SegmenterSettings, TrainedSegmenter, cached_segmenter, labels_of

MAX_SEGMENTER_PX = 64
"""Larger twins, made and real, are reduced to this for the segmenter, which is trained in minutes on a CPU."""


@dataclass(frozen=True)
class MeasurementPlan:
    """The plan of a measurement.

    ``segmenters``: settings by size; ``features``: the feature network of the Frechet distance, if any.
    """

    count: int
    ways: tuple[Way, ...]
    sampling: SamplingSettings
    size_px: int
    seed: int
    segmenters: dict[int, SegmenterSettings]
    features: FeatureNetwork | None = None


Progress = Callable[[str, int, int], None]
"""Called with (what is being done, done, total)."""


def measured_sizes(card: ModelCard, size_px: int) -> tuple[int, ...]:
    """The sizes of a measurement: the generator's, and the requested one."""
    return tuple(sorted({card.generation_size_px, size_px}))


def default_segmenters(card: ModelCard, size_px: int) -> dict[int, SegmenterSettings]:
    """One segmenter for each measured size, none larger than :data:`MAX_SEGMENTER_PX`."""
    working = {min(size, MAX_SEGMENTER_PX) for size in measured_sizes(card, size_px)}
    return {size: SegmenterSettings(size_px=size) for size in sorted(working)}


def evaluate(
    system: System,
    data: TrainingSet,
    plan: MeasurementPlan,
    cache: Path,
    *,
    has_up: bool | None = None,
    progress: Progress | None = None,
) -> tuple[dict[str, Any], dict[Way, tuple[list[Query], Twins]]]:
    """Measures a model against a dataset's test split.

    Returns the figures (see :func:`faithfulness` and :func:`agreement`; JSON-able), and for each way of asking the
    queries with the twins of the asked size. Raises :class:`workers.data.listings.DatasetInvalid` when the
    data has other classes or no test split.
    """
    card = system.card
    check_same_classes(card, data)
    data.check_held_out()
    report = progress or (lambda what, done, total: None)
    answerable = queryable_mask(card)
    sizes = measured_sizes(card, plan.size_px)
    _, full_masks = data.arrays("test", plan.size_px)
    queries = draw_queries(card, full_masks, count=plan.count, seed=plan.seed)

    def segmenter_of(size: int, settings: SegmenterSettings) -> TrainedSegmenter:
        def report_iteration(done: int, total: int, loss: float) -> None:
            report(f"segmenter {size} px", done, total)

        return cached_segmenter(data, settings, cache, has_up=has_up, on_iteration=report_iteration)

    segmenters = {size: segmenter_of(size, settings) for size, settings in plan.segmenters.items()}
    real = {size: Twins(*data.arrays("test", size)) for size in {*sizes, *segmenters}}
    seen, _ = data.arrays("train", COPY_CHECK_PX)
    figures: dict[str, Any] = {
        "model": card.id,
        "data": {"name": data.name, "split": "test", "images": len(full_masks)},
        "count": plan.count,
        "seed": plan.seed,
        "size_px": plan.size_px,
        "sampling": vars(plan.sampling),
        "segmenter_settings": {str(size): settings.model_dump() for size, settings in plan.segmenters.items()},
        "segmenter_miou_on_real": {str(size): rounded(real_miou(segmenters[size], real[size])) for size in segmenters},
        "by": {},
    }
    made: dict[Way, tuple[list[Query], Twins]] = {}
    for way in plan.ways:

        def report_step(done: int, total: int, way: Way = way) -> None:
            report(f"twins by {way}", done, total)

        twins = make_twins(system, queries, way, plan.sampling, sizes, on_step=report_step)
        found = faithfulness(queries, twins[plan.size_px].masks, answerable, [entry.name for entry in card.classes])
        found["agreement"] = {
            str(size): agreement(
                segmenters[min(size, MAX_SEGMENTER_PX)], twins[size], real[min(size, MAX_SEGMENTER_PX)]
            )
            for size in sizes
        }
        found |= originality(twins[card.generation_size_px].images, real[card.generation_size_px].images, seen)
        if plan.features is not None and can_halve(twins[plan.size_px].images, real[plan.size_px].images):
            found["frechet"] = frechet(plan.features, twins[plan.size_px].images, real[plan.size_px].images, plan.seed)
        figures["by"][way] = found
        made[way] = (queries, twins[plan.size_px])
    return figures, made


def faithfulness(
    queries: Sequence[Query], masks: np.ndarray, answerable: np.ndarray, names: Sequence[str]
) -> dict[str, Any]:
    """PPV, its converse, both by class, and the confident share, of made masks ``(N, H, W)``."""
    queried = np.stack([query.multi_hot for query in queries])
    found = present_classes(masks, len(answerable))
    by_class = {
        names[k]: {
            "queried": int(queried[:, k].sum()),
            "ppv": rounded(positive_predicted_value(queried[:, [k]], found[:, [k]])),
            "converse": rounded(converse_predicted_value(queried[:, [k]], found[:, [k]], np.ones(1, dtype=bool))),
        }
        for k in np.flatnonzero(answerable).tolist()
    }
    return {
        "ppv": rounded(positive_predicted_value(queried, found)),
        "converse": rounded(converse_predicted_value(queried, found, answerable)),
        "confident_share": rounded(confident_share(masks)),
        "by_class": by_class,
    }


def real_miou(segmenter: TrainedSegmenter, real: Twins) -> float:
    """The segmenter's mIoU on real pairs of its size, over its answerable classes."""
    true = labels_of(real.masks, segmenter.answerable)
    return mean_iou(_confusion(segmenter, real.images, true), segmenter.answerable)


def agreement(segmenter: TrainedSegmenter, made: Twins, real: Twins) -> dict[str, Any]:
    """A segmenter's mIoU for the made masks in the made images, over its mIoU on real pairs.

    ``made`` is reduced to the segmenter's size. The ratio is mIoU(made) / mIoU(real); 1 means as good as real.
    """
    reduced = made.reduced(segmenter.size_px)
    confusion = _confusion(segmenter, reduced.images, labels_of(reduced.masks, segmenter.answerable))
    on_made, on_real = mean_iou(confusion, segmenter.answerable), real_miou(segmenter, real)
    ious = class_ious(confusion)
    return {
        "seen_at_px": segmenter.size_px,
        "miou_made": rounded(on_made),
        "miou_real": rounded(on_real),
        "ratio": rounded(on_made / on_real if on_real else float("nan")),
        "iou_made": {str(k): rounded(ious[k]) for k in segmenter.answerable},
    }


def _confusion(segmenter: TrainedSegmenter, images: np.ndarray, true: np.ndarray) -> np.ndarray:
    return confusion_matrix(true, segmenter.predict(images), segmenter.network.head.out_channels)
