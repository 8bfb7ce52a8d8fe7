"""Evaluation of models that follow masks: faithfulness, text control, originality, and ablations side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from model_store.card import ModelCard
from model_store.features import FeatureNetwork
from model_store.interface import ConditionRequest, System
from service.kit.seeds import sample_seed
from workers.data.training_set import TrainingSet
from workers.evaluation.captions import captions_of, read_captions
from workers.evaluation.classifier import MAX_CLASSIFIER_PX, ClassifierSettings, cached_classifier
from workers.evaluation.cosimgen_evaluate import Progress
from workers.evaluation.cosimgen_requests import check_same_classes
from workers.evaluation.mask_faithfulness import Reference, classes_to_follow
from workers.evaluation.mask_requests import (
    MaskWay,
    check_takes_masks,
    given_mask,
    mask_ways,
    requests_by_mask,
    takes,
    text_way,
    texts_to_show,
)
from workers.evaluation.realism import COPY_CHECK_PX, can_halve, frechet, originality
from workers.evaluation.sampling import OnStep, SamplingSettings, make_images
from workers.evaluation.segmenter import SegmenterSettings, cached_segmenter
from workers.evaluation.text_control import DEFAULT_LABEL, Labels, control_text, read_labels

MAX_MASKS_BY_TEXT = 4


@dataclass(frozen=True)
class MaskPlan:
    """The plan of a measurement.

    ``ways``: None for all that card and captions allow; ``count``: how many test images, None for all; ``label``: the
    captions' member for the text control, None for ``modality`` if they have it; ``text_count``: its images, 0 for no
    text control.
    """

    sampling: SamplingSettings
    seed: int
    segmenter: SegmenterSettings
    classifier: ClassifierSettings
    ways: tuple[MaskWay, ...] | None = None
    count: int | None = None
    label: str | None = None
    text_count: int = 120
    features: FeatureNetwork | None = None


@dataclass(frozen=True)
class Ablation:
    """Another model to measure beside the first; it is loaded just before its measurement."""

    name: str
    card: ModelCard
    load: Callable[[], System]


@dataclass(frozen=True)
class EvaluationImages:
    """The images behind the figures: test images and masks, and images made by each way, label and text."""

    real: np.ndarray
    masks: np.ndarray
    made: dict[MaskWay, np.ndarray] = field(default_factory=dict)
    by_label: dict[str, np.ndarray] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    by_text: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    """A mask, and an image of it for each of ``texts``."""


def default_segmenter(card: ModelCard) -> SegmenterSettings:
    """Settings for the generated size, since a mask is about thin borders; smaller batches if the size is large."""
    return SegmenterSettings(size_px=card.generation_size_px, batch_size=32 if card.generation_size_px <= 128 else 8)


def default_classifier(card: ModelCard) -> ClassifierSettings:
    """Settings for the generated size, but at most :data:`MAX_CLASSIFIER_PX`."""
    return ClassifierSettings(size_px=min(card.generation_size_px, MAX_CLASSIFIER_PX))


def check_comparable(card: ModelCard, other: ModelCard) -> None:
    """Raises ValueError for a model with other classes or another size than ``card``'s."""
    check_takes_masks(other)
    names, others = ([entry.name for entry in each.classes] for each in (card, other))
    if names != others or card.generation_size_px != other.generation_size_px:
        raise ValueError(
            f"{card.id} has {names} at {card.generation_size_px} px, but {other.id} has {others} at "
            f"{other.generation_size_px} px; "
            f"models are compared on the same classes and size"
        )


def evaluate_masks(
    system: System,
    data: TrainingSet,
    plan: MaskPlan,
    cache: Path,
    *,
    ablations: Sequence[Ablation] = (),
    has_up: bool | None = None,
    progress: Progress | None = None,
) -> tuple[dict[str, Any], EvaluationImages]:
    """Measures a model against a dataset's test split: one image for each test mask and way, all at the generated size.

    Returns the figures (JSON-able) and their images. Whatever cannot be measured is refused before anything is trained
    or made: :class:`workers.data.listings.DatasetInvalid` for the data, ValueError for the models and the plan.
    """
    card, report = system.card, progress or (lambda what, done, total: None)
    check_takes_masks(card)
    check_same_classes(card, data)
    data.check_held_out()
    for ablation in ablations:
        check_comparable(card, ablation.card)
    captions = read_captions(data, plan.label or DEFAULT_LABEL)
    stems = _chosen(data.stems("test"), plan.count, plan.seed)
    texts = captions_of(data, stems, captions) if takes(card, "mask", "prompt") and plan.ways != ("mask",) else None
    ways = _checked_ways(card, plan.ways, mask_ways(card, texts))
    labels = _labels(card, data, plan, captions)
    images, masks = data.arrays("test", card.generation_size_px, stems)
    classes_to_follow(masks, len(data.classes))
    segmenter = cached_segmenter(
        data,
        plan.segmenter,
        cache,
        answerable=range(len(data.classes)),  # background too: a mask says where nothing is
        has_up=has_up,
        device=system.device,
        on_iteration=lambda done, total, loss: report(f"segmenter {plan.segmenter.size_px} px", done, total),
    )
    reference = Reference.of(segmenter, images, masks)
    seen, _ = data.arrays("train", COPY_CHECK_PX)
    made_images = EvaluationImages(images, masks)
    figures: dict[str, Any] = {
        "model": card.id,
        "data": {"name": data.name, "split": "test", "images": len(data.stems("test"))},
        "count": len(stems),
        "seed": plan.seed,
        "size_px": card.generation_size_px,
        "sampling": vars(plan.sampling),
        "segmenter_settings": plan.segmenter.model_dump(),
        "segmenter_on_real": reference.figures(),
        "by": {},
    }
    for way in ways:
        made = _make(system, masks, way, texts, plan, _step(report, f"images by {way}"))
        figures["by"][way] = reference.faithfulness(made) | originality(made, images, seen)
        if plan.features is not None and can_halve(made, images):
            figures["by"][way]["frechet"] = frechet(plan.features, made, images, plan.seed)
        made_images.made[way] = made
    if labels is not None:
        classifier = cached_classifier(
            data,
            labels.train,
            labels.names,
            plan.classifier,
            cache,
            has_up=has_up,
            device=system.device,
            on_iteration=lambda done, total, loss: report("classifier", done, total),
        )
        step = _step(report, "images by label")
        found, by_label = control_text(
            system, data, labels, classifier, masks, plan.sampling, count=plan.text_count, seed=plan.seed, on_step=step
        )
        figures["text_control"] = {"classifier_settings": plan.classifier.model_dump(), **found}
        made_images.by_label.update(by_label)
    if takes(card, "mask", "prompt") and texts is not None:
        made_images.texts.extend(texts_to_show(labels.texts if labels else {}, texts))
        made_images.by_text.extend(
            _draw_by_texts(system, masks, made_images.texts, plan, _step(report, "one mask, several texts"))
        )
    if ablations:
        figures["ablations"] = [_ablation(each, ways, masks, texts, plan, reference, report) for each in ablations]
    return figures, made_images


def evenly_spaced(count: int, max_count: int) -> list[int]:
    """Up to ``max_count`` of the places 0..count-1, evenly spaced."""
    return sorted({round(place) for place in np.linspace(0, count - 1, min(count, max_count))})


def _chosen(stems: Sequence[str], count: int | None, seed: int) -> list[str]:
    if count is None or count >= len(stems):
        return list(stems)
    return [stems[row] for row in sorted(np.random.default_rng(seed).permutation(len(stems))[:count])]


def _checked_ways(
    card: ModelCard, asked: tuple[MaskWay, ...] | None, possible: tuple[MaskWay, ...]
) -> tuple[MaskWay, ...]:
    lacking = [way for way in asked or () if way not in possible]
    if lacking or not possible:
        raise ValueError(
            f"{card.id} cannot be measured by {lacking[0] if lacking else 'mask+caption'} on this data: its card takes "
            f"{[list(chosen) for chosen in card.accepted_inputs]}, and captions need a captions.jsonl; "
            f"possible: {', '.join(possible) or 'none'}"
        )
    return asked or possible


def _labels(card: ModelCard, data: TrainingSet, plan: MaskPlan, captions: dict[str, Any]) -> Labels | None:
    if plan.text_count == 0 or text_way(card) is None:
        return None
    if plan.label is None and all(caption.label is None for caption in captions.values()):
        return None
    return read_labels(data, captions, plan.label or DEFAULT_LABEL)


def _make(
    system: System, masks: np.ndarray, way: MaskWay, texts: Sequence[str] | None, plan: MaskPlan, on_step: OnStep
) -> np.ndarray:
    requests = requests_by_mask(masks, way, texts, seed=plan.seed, target=plan.sampling.guidance_target)
    return make_images(
        system,
        [request.condition for request in requests],
        [request.seed for request in requests],
        plan.sampling,
        on_step=on_step,
    )


def _draw_by_texts(
    system: System, masks: np.ndarray, texts: Sequence[str], plan: MaskPlan, on_step: OnStep
) -> list[tuple[np.ndarray, np.ndarray]]:
    """A few masks, each with one image a text; the images of a mask have the same seed."""
    if len(texts) < 2:
        return []
    rows = evenly_spaced(len(masks), MAX_MASKS_BY_TEXT)
    target = plan.sampling.guidance_target
    requests = [
        ConditionRequest(prompt=text, mask=given_mask(masks[row]), guidance_target=target)
        for row in rows
        for text in texts
    ]
    seeds = [sample_seed(plan.seed, row) for row in rows for _ in texts]
    made = make_images(system, requests, seeds, plan.sampling, on_step=on_step)
    return [(masks[row], made[place * len(texts) : (place + 1) * len(texts)]) for place, row in enumerate(rows)]


def _ablation(
    ablation: Ablation,
    ways: Sequence[MaskWay],
    masks: np.ndarray,
    texts: Sequence[str] | None,
    plan: MaskPlan,
    reference: Reference,
    report: Progress,
) -> dict[str, Any]:
    system = ablation.load()
    possible = mask_ways(ablation.card, texts)
    by = {
        way: reference.faithfulness(_make(system, masks, way, texts, plan, _step(report, f"{ablation.name} by {way}")))
        for way in ways
        if way in possible
    }
    return {"name": ablation.name, "model": ablation.card.id, "by": by}


def _step(report: Progress, what: str) -> OnStep:
    return lambda done, total: report(what, done, total)
