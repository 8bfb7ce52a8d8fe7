"""The job that a path names, for its own tenant alone.

An endpoint gets a job's spec by :data:`OwnJob` or :data:`LazyOwnJob` and has no other way to one, so none can forget to
check the tenant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, TypeVar

from fastapi import Depends, Path

from service.api.auth import TenantDep
from service.api.services import Services, ServicesDep
from service.jobs.spec import JobSpec

Seen = TypeVar("Seen")

JobId = Annotated[str, Path(description="A job's id.", examples=["j7ybr17pesw6kn47yb0"])]


def own_job(job: JobId, tenant: TenantDep, services: ServicesDep) -> JobSpec:
    """The spec of the tenant's job. Raises as :meth:`JobRepository.read_spec` does."""
    return services.repository.read_spec(job, tenant=tenant)


def delete_unreadable_job(services: Services, job: str, tenant: str) -> None:
    """Deletes a job of the tenant, of which a record cannot be read. A worker that makes it is told to stop."""
    services.repository.request_cancel(job)
    services.live_state.flag_cancel(job)
    services.repository.deletions.enqueue_unreadable(job, tenant)


OwnJob = Annotated[JobSpec, Depends(own_job)]
"""The spec of the path's ``job``. A job of another tenant is answered with 404, like one that does not exist."""


@dataclass(frozen=True)
class OwnJobReader:
    """Reads the path's ``job`` later, for an endpoint that does nothing else."""

    job: str
    tenant: str
    services: Services

    async def read(self, view: Callable[[Services, JobSpec], Seen]) -> Seen:
        """What ``view`` makes of the job's spec, read in the same call, off the event loop. Raises what OwnJob does."""
        return await self.services.look_up(lambda: view(self.services, own_job(self.job, self.tenant, self.services)))


async def _own_job_reader(job: JobId, tenant: TenantDep, services: ServicesDep) -> OwnJobReader:
    return OwnJobReader(job, tenant, services)


LazyOwnJob = Annotated[OwnJobReader, Depends(_own_job_reader)]
"""As :data:`OwnJob`, but read only when the endpoint asks for it: one call for the spec and what depends on it."""
