"""Probes: what an iteration of a network took on a machine type, as a worker measured it on the first 20 of a stage.

They give a training's estimate before a GPU is used. A later probe of the same network and machine replaces an earlier
one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import AwareDatetime, Field

from service.errors import ObjectNotFound, RecordUnreadable, UnknownRun
from service.kit.frozen import _Frozen, parse_stored
from service.kit.run_kinds import RunKind
from service.runs.repository import RunRepository
from service.store import training_keys
from service.store.base import ObjectStore
from service.trainings.options import SystemName
from service.trainings.presets import PRESETS
from service.trainings.work import PARTS, TrainingStage, TrainingWork

PROBE_ITERATIONS = 20
_NETWORK_OPTIONS = (
    "preset",
    "precision",
    "size_px",
    "paper",
    "chunks",
    "tokens",
    "base_px",
    "times",
    "patch_px",
    "features",
    "dhi",
    "consistency",
    "augmentation",
    "instances",
)
"""Options on which an iteration's time depends, beside the batch size."""
_LOSSES = ("adversarial_weight", "perceptual_weight")
"""Weights of losses that cost nothing at 0."""
_MAX_DEPTH = 4


class Probe(_Frozen):
    """A measurement of one network on one machine type."""

    format: int = Field(1, ge=1, le=1)
    system: SystemName
    network: str = Field(description="fingerprint of the stage's network")
    machine: dict[str, str] = Field(description="of equal machines, equal: the device's name, versions, threads")
    device: str = Field(description="name of the GPU or CPU")
    devices: int = Field(1, ge=1)
    seconds_per_iteration: float = Field(gt=0)
    iterations: int = Field(ge=1, description="iterations that were measured")
    parameters: int = Field(ge=0)
    memory_bytes: int | None = Field(None, ge=0, description="the most that was taken of one device's memory")
    at: AwareDatetime


def put_probe(store: ObjectStore, probe: Probe) -> None:
    """Stores the probe, in place of an earlier one."""
    key = training_keys.probe(machine_sha(probe.machine, probe.devices), probe.system, probe.network)
    store.put(key, probe.model_dump_json().encode())


def find_probes(store: ObjectStore, system: SystemName, network: str) -> Iterator[Probe]:
    """The probes of a network, one a machine type; unreadable ones are left out."""
    for machine in list(store.list_folders(training_keys.probes_prefix())):
        key = training_keys.probe(machine, system, network)
        try:
            yield parse_stored(Probe, store.get(key), key, system=system, network=network)
        except (ObjectNotFound, RecordUnreadable):
            continue


def machine_sha(machine: dict[str, str], devices: int) -> str:
    """What identifies a machine type, with the number of devices, in keys."""
    return _sha({"machine": machine, "devices": devices})


@dataclass(frozen=True)
class Fingerprints:
    """Fingerprints of networks, which include those of the parts that they are built on."""

    runs: RunRepository
    tenant: str

    def of(self, work: TrainingWork, number: int, depth: int = 0) -> str:
        """The fingerprint of stage ``number``."""
        stage = work.stages[number]
        uses = {role: self._of_part(work, ref, depth) for role, ref in stage.uses.items()}
        return _sha({"system": stage.system, "options": network_options(stage), "uses": uses})

    def _of_part(self, work: TrainingWork, ref: str, depth: int) -> str:
        kind, _, name = ref.replace("/", ":").partition(":")
        if depth >= _MAX_DEPTH:
            return ref
        if kind == "stage":
            return self.of(work, int(name), depth + 1)
        try:
            spec = self.runs.read_spec(name, tenant=self.tenant, kind=RunKind.TRAINING)
        except (UnknownRun, RecordUnreadable):
            return ref
        other = TrainingWork.model_validate(spec.work)
        last = len(other.stages) - 1
        return self.of(other, last if other.last.system in PARTS else max(0, last - 1), depth + 1)


def network_options(stage: TrainingStage) -> dict[str, Any]:
    """The options of a stage on which an iteration's time depends, defaults filled in."""
    settings = stage.settings
    found = {name: getattr(settings, name) for name in _NETWORK_OPTIONS if hasattr(settings, name)}
    weights = {name: getattr(settings, name) == 0 for name in _LOSSES if hasattr(settings, name)}
    batch_size = settings.batch_size or PRESETS[stage.system][settings.preset].batch_size
    return found | {f"no {name}": is_zero for name, is_zero in weights.items()} | {"batch_size": batch_size}


def _sha(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
