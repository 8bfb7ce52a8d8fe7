"""The options of each trainable system, as pydantic models: one source for the API, the commands and their files.

An option without a value has the preset's.

common        the options that several systems share
systems       the options of each system
"""

from __future__ import annotations

from service.trainings.options.common import TrainingOptions
from service.trainings.options.systems import (
    OPTIONS,
    AutoencoderOptions,
    BaseOptions,
    CoSimGenOptions,
    PathDiffOptions,
    SiameseOptions,
    SuperresOptions,
    SystemName,
)

__all__ = [
    "OPTIONS",
    "AutoencoderOptions",
    "BaseOptions",
    "CoSimGenOptions",
    "PathDiffOptions",
    "SiameseOptions",
    "SuperresOptions",
    "SystemName",
    "TrainingOptions",
]
