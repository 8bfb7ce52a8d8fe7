"""``/autoscaling``: how many workers the queued work needs, for KEDA's metrics-api scaler and for people.

It needs no key and takes any Host, like ``/metrics``, which tells the same numbers. Neither belongs on the internet.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from service.api.fleet import MAX_READ_S, busy_workers
from service.api.openapi import answers
from service.api.query import CheckedRoute
from service.api.schemas.autoscaling import Autoscaling, BulkWork, ModelWork
from service.api.services import ServicesDep
from service.errors import BrokerUnavailable, NotReady
from service.jobs.backlog import ModelBacklog
from service.kit.run_kinds import RunKind
from service.kit.scaling import replicas_wanted

router = APIRouter(route_class=CheckedRoute, tags=["operation"])

_NAMES = "name or name@version, separated by commas"


@router.get("/autoscaling", summary="Workers needed", response_model=Autoscaling, responses=answers(503))
async def autoscaling(
    services: ServicesDep,
    target_s: Annotated[float, Query(ge=1, le=604_800, description="seconds in which the work shall be done")] = 600.0,
    models: Annotated[str, Query(description=f"count these models only: {_NAMES}")] = "",
    except_models: Annotated[str, Query(description=f"do not count these models: {_NAMES}")] = "",
    runs_per_worker: Annotated[int, Query(ge=1, le=1000, description="runs that a bulk worker shall have")] = 2,
) -> Autoscaling:
    """The workers that the queued work needs: `replicas` to make twins within `target_s`, `bulk.replicas` for runs.

    Never fewer than those that hold work now. 503 if that cannot be told; then leave the number of workers as it is.
    """
    try:
        work = await services.fleet.get(MAX_READ_S)
    except TimeoutError:
        raise NotReady(f"the backlog has not been read after {MAX_READ_S:g} s; ask again") from None
    wanted, excepted = set(models.split(",")) - {""}, set(except_models.split(",")) - {""}
    counted = [
        model
        for model in work.backlog.models
        if (not wanted or _names(model) & wanted) and not _names(model) & excepted
    ]
    busy, bulk_holders = busy_workers(counted), work.bulk_holders
    if busy is None or bulk_holders is None:
        raise BrokerUnavailable(
            "Redis does not answer, so the workers that hold work are not known; leave their number as it is"
        )
    backlog_s = sum(model.device_seconds for model in counted)
    runs, bulk_busy = work.open_runs.total() - work.open_runs[RunKind.TRAINING], len(set(bulk_holders))
    return Autoscaling(
        replicas=replicas_wanted(backlog_s, target_s, busy),
        target_s=target_s,
        backlog_device_seconds=backlog_s,
        busy_workers=busy,
        models=[_view(model) for model in counted],
        bulk=BulkWork(runs=runs, busy_workers=bulk_busy, replicas=replicas_wanted(runs, runs_per_worker, bulk_busy)),
    )


def _names(model: ModelBacklog) -> set[str]:
    return {model.model, model.model.partition("@")[0]}


def _view(model: ModelBacklog) -> ModelWork:
    holders = model.holders or ()
    return ModelWork(
        model=model.model,
        jobs=model.jobs,
        samples=model.samples,
        backlog_device_seconds=model.device_seconds,
        row_step_device_seconds=model.row_seconds,
        leases=len(holders),
        busy_workers=len(set(holders)),
    )
