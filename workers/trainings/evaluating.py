"""Evaluation of a trained model on the test split of its data, with the figures written on its card.

The model is asked and sampled as the command does by default, so the figures can be compared with the command's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workers.trainings.folder import StageOrder


def evaluated(model: Path, order: StageOrder) -> dict[str, Any]:
    """The figures of the model in a folder, which are written on its card; empty if the data have no test split."""
    from model_store.features import best_available, open_features
    from model_store.loading import load_system
    from workers.data.training_set import TrainingSet
    from workers.evaluation.options import fit_of
    from workers.evaluation.report import write_on_card

    system = load_system(model, device=order.device, dtype="auto")
    # PathDiff is measured on the dataset of its masks
    data = TrainingSet.open(order.data[-1], fit=fit_of(system.card), tenant=order.tenant)
    if not data.has_split("test"):
        return {}
    features = open_features(best_available())
    measure = _measure_cosimgen if system.card.system == "cosimgen" else _measure_masks
    figures = measure(system, data, features, model.parent / "segmenters")
    write_on_card(figures, model)
    return figures


def _measure_cosimgen(system: Any, data: Any, features: Any, cache: Path) -> dict[str, Any]:
    from workers.evaluation.cosimgen_evaluate import MeasurementPlan, default_segmenters, evaluate
    from workers.evaluation.sampling import sampling_for

    size_px = system.card.default_size_px
    plan = MeasurementPlan(
        count=200,
        ways=("classes", "prompts"),
        sampling=sampling_for(system.card, steps=None, guidance_scale=None, eta=None),
        size_px=size_px,
        seed=0,
        segmenters=default_segmenters(system.card, size_px),
        features=features,
    )
    return evaluate(system, data, plan, cache)[0]


def _measure_masks(system: Any, data: Any, features: Any, cache: Path) -> dict[str, Any]:
    from workers.evaluation.mask_evaluate import MaskPlan, default_classifier, default_segmenter, evaluate_masks
    from workers.evaluation.sampling import sampling_for

    plan = MaskPlan(
        sampling=sampling_for(system.card, steps=None, guidance_scale=None, eta=None),
        seed=0,
        segmenter=default_segmenter(system.card),
        classifier=default_classifier(system.card),
        ways=None,
        count=None,
        label=None,
        text_count=120,
        features=features,
    )
    return evaluate_masks(system, data, plan, cache)[0]
