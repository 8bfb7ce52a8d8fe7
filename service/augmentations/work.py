"""The decided request of an augmentation set, from which its plan follows."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from service.augmentations.set_fit import SetFit
from service.jobs.parameters import SamplingParameters
from service.kit.frozen import _Frozen


class AugmentationWork(_Frozen):
    """A request with everything decided, so the same work gives the same set. ``dataset`` is name@version."""

    dataset: str
    dataset_run: str = Field(description="the run that imported the dataset")
    model: str = Field(description="name@version")
    count: int
    seed: int
    sampling: SamplingParameters
    fit: SetFit | None = Field(
        None, description="None: squares of the sampling's size, as sets had before they had a fit"
    )
    request: dict[str, Any] = Field(description="the request, its seed filled in")
