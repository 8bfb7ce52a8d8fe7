"""Views of the fleet's work, and of the workers that it needs."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ModelWork(BaseModel):
    """The work of one model, queued and in hand."""

    model_config = ConfigDict(protected_namespaces=())

    model: str = Field(description="name@version")
    jobs: int
    samples: int = Field(description="samples without a record")
    backlog_device_seconds: float = Field(description="what one device would need for them")
    row_step_device_seconds: float | None = Field(description="as measured by a worker; null if none has")
    leases: int = Field(description="chunks that a worker holds")
    busy_workers: int = Field(description="workers that hold a lease")


class BulkWork(BaseModel):
    """The datasets, augmentation sets and exports that have not ended."""

    runs: int
    busy_workers: int
    replicas: int = Field(description="bulk workers needed: max(ceil(runs / runs_per_worker), busy_workers)")


class Autoscaling(BaseModel):
    """The workers that the work needs: ``replicas = max(ceil(backlog_device_seconds / target_s), busy_workers)``."""

    replicas: int
    target_s: float
    backlog_device_seconds: float
    busy_workers: int
    models: list[ModelWork]
    bulk: BulkWork
