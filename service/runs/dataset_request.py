"""The body of ``POST /datasets`` for a dataset whose files are in the object store."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator

from service.datasets.splits import read_split_map
from service.runs.dataset_versions import (
    DATASET_NAME_FORM,
    ReadFormat,
)


class DatasetFromStore(BaseModel):
    """A dataset whose files are in the object store, under ``imports/{tenant}/{prefix}/``."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(description=f"The dataset's name: {DATASET_NAME_FORM}.", max_length=200)
    prefix: str = Field(
        description="The folder below imports/{tenant}/ in the service's bucket.", min_length=1, max_length=400
    )
    format: ReadFormat | None = Field(None, description="Its format; detected if left out.")
    split_map: dict[str, str] = Field(
        default_factory=dict,
        max_length=64,
        description="New names of its splits; `default` stands for items without one.",
    )

    @field_validator("split_map")
    @classmethod
    def _by_meaning(cls, split_map: dict[str, str]) -> dict[str, str]:
        return read_split_map(split_map)
