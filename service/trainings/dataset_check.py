"""Check of a stored dataset before it is trained on: counts and shares from its statistics, and what it lacks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice

from service.datasets.splits import canonical_split
from service.datasets.statistics_values import DatasetStatistics
from service.datasets.stored import layout
from service.datasets.stored.dataset import StoredDataset, report_key
from service.kit.frozen import parse_stored
from service.kit.validation import join_list
from service.runs.dataset_versions import Datasets
from service.trainings.options import SystemName
from service.trainings.plan_values import ClassShare, DatasetCheck
from service.trainings.work import TrainingWork

MIN_IMAGES = 50
"""Below that many images a training is warned of."""
_CAPTIONS_READ = 5000
_READS_CAPTIONS: tuple[SystemName, ...] = ("base", "siamese-diffusion", "pathdiff")
"""Systems that read the captions of their first dataset."""
_READS_MASKS: tuple[SystemName, ...] = ("cosimgen", "superres", "siamese-diffusion", "pathdiff")
"""Systems that read the masks of their last dataset."""
_NOT_STATED = "not stated"


def check_datasets(datasets: Datasets, work: TrainingWork) -> tuple[DatasetCheck, ...]:
    """The datasets of all stages. Raises UnknownDataset and StoreError."""
    captioned = {stage.data[0] for stage in work.stages if stage.system in _READS_CAPTIONS}
    refs = dict.fromkeys(ref for stage in work.stages for ref in stage.data)
    return tuple(_check(datasets.ready(ref), ref, captions=ref in captioned) for ref in refs)


def warnings(work: TrainingWork, checks: tuple[DatasetCheck, ...]) -> Iterator[str]:
    """What the datasets lack for this training, each with the remedy."""
    masked = {stage.data[-1] for stage in work.stages if stage.system in _READS_MASKS}
    tested = work.last.data[-1]
    for check in checks:
        name = check.dataset
        if check.trained_on == 0:
            yield f"{name} has no image in a train split, nor one without a split: nothing can be trained on it"
        elif check.trained_on < MIN_IMAGES:
            yield (
                f"{name} has {check.trained_on} images to train on; below {MIN_IMAGES} a model repeats them rather "
                "than learning from them: add images"
            )
        unseen = [entry.name for entry in check.classes if entry.images == 0]
        if unseen and name in masked:
            yield f"{name} shows no {join_list(unseen)} in any mask, so the model cannot make them: add masks that do"
        if name == tested and not check.splits.get("test"):
            yield (
                f"{name} has no test split, so nothing is measured on images that were not trained on: put some images "
                "into a split named test"
            )
        if check.with_captions is not None and check.with_captions < 1:
            lacking = (
                "no image has" if check.with_captions == 0 else f"{1 - check.with_captions:.0%} of its images lack"
            )
            yield f"{name}: {lacking} a caption, which this training reads: add captions.jsonl"
        if check.licence == _NOT_STATED:
            yield f"{name} states no licence, so the model's card cannot say what it may be used for: add it"


def _check(dataset: StoredDataset, ref: str, *, captions: bool) -> DatasetCheck:
    about, found = dataset.about, _statistics(dataset)
    splits = json.loads(dataset.store.get(report_key(dataset.store, dataset.run)))["splits"]
    counts: dict[str, int] = {}
    for name, count in splits.items():
        split = canonical_split(name) or ""
        counts[split] = counts.get(split, 0) + count
    return DatasetCheck(
        dataset=ref,
        images=about.items,
        trained_on=counts.get("train", 0) + counts.get("", 0),
        splits=counts,
        licence=about.licence or _NOT_STATED,
        classes=tuple(
            ClassShare(
                index=entry.entry.index,
                name=entry.entry.name,
                images=entry.images,
                image_share=entry.image_share,
                pixel_share=entry.pixel_share,
            )
            for entry in found.classes
        ),
        image_sizes=found.image_sizes,
        with_captions=_captioned_share(dataset) if captions else None,
    )


def _statistics(dataset: StoredDataset) -> DatasetStatistics:
    stored = dataset.about.objects.get("statistics")
    key = layout.statistics(dataset.run) if stored is None else stored.key
    return parse_stored(DatasetStatistics, dataset.store.get(key), key)


def _captioned_share(dataset: StoredDataset) -> float:
    """The share of the first images that have a text."""
    looked_at = captioned = 0
    for _, record in islice(dataset.records(), _CAPTIONS_READ):
        looked_at += 1
        captioned += bool(record.texts)
    return captioned / max(1, looked_at)
