"""The objects between which PathDiff's hints have edges: of a dataset's instance maps, or its masks' regions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from workers.data.instance_keys import Instances
from workers.data.training_set import TrainingSet
from workers.training.checkpoints import CheckpointInvalid

_FORMER = {"given": "maps", "no": "none"}
"""What earlier versions called the settings."""
InstanceSetting = Annotated[Instances, BeforeValidator(lambda value: _FORMER.get(value, value))]
_EDGES: dict[Instances, str] = {
    "maps": "and those between single instances, where the dataset has maps of them",
    "regions": "and those between the connected regions of a class, numbered before masks are resized",
    "none": "not those of single instances",
}


def edges_deviation(instances: Instances) -> str:
    """The sentence on a hint's edges for the card; PathDiff's paper leaves them open."""
    return (
        f"Masks are normalised to [-1, 1] (the authors feed 0 to 255), with the edges of the label map, "
        f"{_EDGES[instances]}."
    )


def instance_maps(masks: TrainingSet) -> int:
    """The number of training masks that have an instance map."""
    return sum(row in masks.index.instances for row in masks.rows(masks.stems()).tolist())


def seen_instances(setting: Instances, masks: TrainingSet) -> Instances:
    """The instances that a run sees: none where maps are wanted and no training mask has one."""
    return "none" if setting == "maps" and not instance_maps(masks) else setting


def check_same_instances(
    folder: Path, about: Mapping[str, Any], then: Instances, now: Instances, masks: TrainingSet
) -> None:
    """Raises :class:`CheckpointInvalid` if a checkpoint's run saw other instances than it is to see now.

    ``then`` and ``now`` are the settings. The model's card would name one kind of edges for a model of two.
    """
    if then != now:
        raise CheckpointInvalid(
            f"{folder} holds a run with --instances {then}, and it is now --instances {now}; give the former, or "
            "choose another --out"
        )
    seen = seen_instances(now, masks)
    if about.get("instances", seen) != seen:
        was, has = ("no instance map", "some") if seen == "maps" else ("instance maps", "none")
        raise CheckpointInvalid(
            f"{folder} holds a run that saw {was}, and {masks.name} now has {has}; train on the former data, or "
            "choose another --out"
        )
