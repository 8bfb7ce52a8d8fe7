"""The decided request of an augmentation set, from which its plan follows."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from service.augmentations.set_fit import SetFit
from service.jobs.parameters import SamplingParameters
from service.kit.frozen import _Frozen
from service.registry.references import model_key


class AugmentationWork(_Frozen):
    """A request with everything decided, so the same work gives the same set. ``dataset`` is name@version."""

    dataset: str
    dataset_run: str = Field(description="the run that imported the dataset")
    model: str = Field(description="name@version; of a shared model, owner:name@version")
    model_owner: str | None = Field(None, description="the tenant whose model it is; None for one of all tenants")
    count: int
    seed: int
    sampling: SamplingParameters
    fit: SetFit | None = Field(
        None, description="None: squares of the sampling's size, as sets had before they had a fit"
    )
    request: dict[str, Any] = Field(description="the request, its seed filled in")

    @property
    def model_key(self) -> str:
        """The key of its model, which names it for any tenant."""
        return model_key(self.model_owner, self.model.rpartition(":")[2])
