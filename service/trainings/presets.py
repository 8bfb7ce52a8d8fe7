"""Length of each system's presets, so that a training can be estimated where no trainer can be built.

The trainers' own presets decide; a test holds this table equal to them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from service.trainings.options import SystemName
from service.trainings.work import TrainingStage


@dataclass(frozen=True)
class PresetLength:
    """Iterations and batch size of a preset; ``epochs`` instead of iterations if these follow from the data."""

    batch_size: int
    iterations: int | None = None
    epochs: int | None = None


PRESETS: dict[SystemName, dict[str, PresetLength]] = {
    "cosimgen": {
        "toy": PresetLength(16, 300),
        "small": PresetLength(16, 20_000),
        "paper": PresetLength(24, 100_000),
    },
    "superres": {"small": PresetLength(16, 2_000), "paper": PresetLength(24, 50_000)},
    "autoencoder": {"small": PresetLength(16, 10_000), "paper": PresetLength(16, 100_000)},
    "base": {"small": PresetLength(16, 20_000), "paper": PresetLength(48, 200_000)},
    "siamese-diffusion": {"small": PresetLength(16, 4_000), "paper": PresetLength(48, 3_000)},
    "pathdiff": {"small": PresetLength(16, 6_000), "paper": PresetLength(72, epochs=60)},
}
"""By system and preset."""


def planned_length(stage: TrainingStage, images: int) -> tuple[int, int]:
    """Iterations and batch size of a stage that trains on ``images`` images."""
    settings = stage.settings
    preset = PRESETS[stage.system][settings.preset]
    iterations = settings.iterations or preset.iterations
    if iterations is None:
        # the trainer counts a preset's epochs in the preset's batches
        iterations = max(1, math.ceil((preset.epochs or 1) * images / preset.batch_size))
    return iterations, settings.batch_size or preset.batch_size
