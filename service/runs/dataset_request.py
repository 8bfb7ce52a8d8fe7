"""The body of ``POST /datasets`` for a dataset whose files lie in the object store already."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from service.runs.dataset_versions import (
    DATASET_NAME_FORM,
    ReadFormat,
)


class DatasetFromStore(BaseModel):
    """The files of a dataset that lie in the object store already, under ``imports/{tenant}/{prefix}/``."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(description=f"The dataset's name: {DATASET_NAME_FORM}.", max_length=200)
    prefix: str = Field(
        description="The folder below imports/{tenant}/ in the service's bucket.", min_length=1, max_length=400
    )
    format: ReadFormat | None = Field(None, description="How it is laid out; found out where left out.")
