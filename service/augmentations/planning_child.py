"""A plan, made in a child process with limits: a dataset may have very many items. See :mod:`service.sandbox`."""

from __future__ import annotations

import json
from typing import Any, cast

from model_store.card import parse_card
from service.augmentations.joining import join_note
from service.augmentations.object_report import object_figures, object_notes
from service.augmentations.plan_chart import draw_plan, examples, first_entries
from service.augmentations.plan_report import report
from service.augmentations.request import AugmentationRequest
from service.augmentations.stored import plan_augmentation
from service.datasets.stored.dataset import StoredDataset
from service.datasets.stored.layout import DatasetAbout
from service.kit.validation import Faults
from service.sandbox.channel import Channel
from service.sandbox.store_gate import GatedStore
from service.settings import Settings
from service.store.base import ObjectStore


def main(channel: Channel) -> None:
    """Plans what the request asks for, and draws the plan. Raises InvalidRequest with all faults of the request."""
    asked: dict[str, Any] = json.loads(channel.request_body)
    dataset = StoredDataset(
        cast(ObjectStore, GatedStore(channel)), asked["run"], DatasetAbout.model_validate(asked["about"])
    )
    faults = Faults()
    for fault in asked["faults"]:
        faults.add_plain(fault["pointer"], fault["detail"])
    planned = plan_augmentation(
        AugmentationRequest.model_validate_json(json.dumps(asked["request"])),
        dataset,
        parse_card(json.dumps(asked["card"]), where="the model's card"),
        Settings(**asked["settings"]),
        faults,
    )
    shares, first = report(planned.plan), first_entries(planned.plan)
    if figures := object_figures(planned.plan, first):
        shares = shares.model_copy(update={"objects": figures, "notes": (*shares.notes, *object_notes(figures))})
    if note := join_note(planned.work.dataset, planned.dataset.classes, planned.card, planned.parameters.match):
        shares = shares.model_copy(update={"notes": (*shares.notes, note)})
    title = f"{planned.work.dataset}, extended by {planned.work.model}"
    picture = draw_plan(shares, examples(planned.plan, first), planned.card.classes, title=title)
    result = {
        "work": planned.work.model_dump(mode="json"),
        "name": planned.parameters.name,
        "count": planned.parameters.count,
        "shares": shares.model_dump(mode="json"),
    }
    text = json.dumps(result).encode()
    channel.finish({"text_bytes": len(text)}, text + picture)
