"""Keys of what a training keeps beside the objects of every run (:mod:`service.store.run_keys`).

trainings/{run}/validated.json                                          its data were read by a worker, and will do
trainings/{run}/control/{number:06d}.json                               a pause or a resume; the last one counts
trainings/{run}/checkpoints/{stage:02d}-{iteration:08d}.json            the record of a checkpoint, written last
trainings/{run}/checkpoints/{stage:02d}-{iteration:08d}.{attempt}.safetensors
trainings/{run}/samples/{stage:02d}-{iteration:08d}.{attempt}.png
trainings/{run}/parts/{stage:02d}/{file}.{attempt}...                   the files of a part, named by its record
trainings/{run}/stages/{stage:02d}.json                                 the record of a stage that is done
probes/{machine}/{system}-{network}.json                                seconds of an iteration on a machine type
tenants/{tenant}/training-seconds/{YYYY-MM}/{run}.{budget|used}.{n}     device-seconds of a training of that month
"""

from __future__ import annotations

from service.store.run_keys import run_prefix


def training_validated(run: str) -> str:
    """The mark that a worker has read the training's data."""
    return f"{run_prefix(run)}validated.json"


def training_controls_prefix(run: str) -> str:
    return f"{run_prefix(run)}control/"


def training_control(run: str, number: int) -> str:
    """Request ``number`` (1, 2, ...) to pause or to resume."""
    return f"{training_controls_prefix(run)}{number:06d}.json"


def training_checkpoints_prefix(run: str) -> str:
    return f"{run_prefix(run)}checkpoints/"


def training_checkpoint(run: str, stage: int, iteration: int) -> str:
    """The record of the checkpoint after so many iterations of a stage."""
    return f"{training_checkpoints_prefix(run)}{stage:02d}-{iteration:08d}.json"


def training_checkpoint_file(run: str, stage: int, iteration: int) -> str:
    """The key of its file, to which an attempt is added."""
    return f"{training_checkpoints_prefix(run)}{stage:02d}-{iteration:08d}.safetensors"


def training_samples_prefix(run: str) -> str:
    return f"{run_prefix(run)}samples/"


def training_samples(run: str, stage: int, iteration: int) -> str:
    """The key of a picture of samples, to which an attempt is added."""
    return f"{training_samples_prefix(run)}{stage:02d}-{iteration:08d}.png"


def training_part(run: str, stage: int, file: str) -> str:
    """The key of a file of a part, to which an attempt is added."""
    return f"{run_prefix(run)}parts/{stage:02d}/{file}"


def training_stages_prefix(run: str) -> str:
    return f"{run_prefix(run)}stages/"


def training_stage(run: str, stage: int) -> str:
    """The record of a stage that is done."""
    return f"{training_stages_prefix(run)}{stage:02d}.json"


def probes_prefix() -> str:
    return "probes/"


def probe(machine: str, system: str, network: str) -> str:
    """The measurement of a network on a machine type, both by their fingerprints."""
    return f"{probes_prefix()}{machine}/{system}-{network}.json"


def tenant_training_seconds_prefix(tenant: str, month: str) -> str:
    return f"tenants/{tenant}/training-seconds/{month}/"


def tenant_training_seconds(tenant: str, month: str, run: str, what: str, seconds: int) -> str:
    """Device-seconds that a training may use (``budget``), or has used (``used``), in the name of an empty object."""
    return f"{tenant_training_seconds_prefix(tenant, month)}{run}.{what}.{seconds}"
