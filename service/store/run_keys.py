"""Where a run's objects lie in the store.

{kind}s/{run}/spec.json  started.json  cancel.json  summary.json  and what the run makes
{kind}s/{run}/callbacks/{n:04d}.json            attempt n at its callback (:mod:`service.webhooks.outbox`)
runs/open/{run}                                 the run has no summary yet, or what it does not keep is still to be removed
runs/deleting/{run}                             the run is gone; its objects are being removed
tenants/{tenant}/runs/{kind}s/{run}             the entry by which it is found among its tenant's
tenants/{tenant}/datasets/{name}/{version}.json the dataset, a run, of a name and version
"""

from __future__ import annotations

from service.kit.run_kinds import RunKind, kind_of


def kind_prefix(kind: RunKind) -> str:
    """Below it lie all runs of a kind, of all tenants."""
    return f"{kind.plural}/"


def run_prefix(run: str) -> str:
    """Raises ValueError for a text that is no run's id."""
    kind = kind_of(run)
    if kind is None:
        raise ValueError(f"{run!r} is no run's id")
    return f"{kind_prefix(kind)}{run}/"


def run_spec(run: str) -> str:
    return f"{run_prefix(run)}spec.json"


def run_started(run: str) -> str:
    """The mark that a worker has begun with the run."""
    return f"{run_prefix(run)}started.json"


def run_cancel(run: str) -> str:
    return f"{run_prefix(run)}cancel.json"


def run_summary(run: str) -> str:
    return f"{run_prefix(run)}summary.json"


def run_callbacks_prefix(run: str) -> str:
    return f"{run_prefix(run)}callbacks/"


def run_callback(run: str, attempt: int) -> str:
    """Where attempt ``attempt`` (1, 2, ...) at the run's callback is recorded."""
    return f"{run_callbacks_prefix(run)}{attempt:04d}.json"


def open_prefix() -> str:
    return "runs/open/"


def open_run(run: str) -> str:
    return f"runs/open/{run}"


def deleting_prefix() -> str:
    return "runs/deleting/"


def deleting_run(run: str) -> str:
    return f"runs/deleting/{run}.json"


def tenant_runs_prefix(tenant: str, kind: RunKind) -> str:
    return f"tenants/{tenant}/runs/{kind.plural}/"


def tenant_run(tenant: str, run: str) -> str:
    """Empty, for its name says all."""
    kind = kind_of(run)
    assert kind is not None
    return f"{tenant_runs_prefix(tenant, kind)}{run}"


def tenant_datasets_prefix(tenant: str) -> str:
    return f"tenants/{tenant}/datasets/"


def tenant_dataset_prefix(tenant: str, name: str) -> str:
    return f"tenants/{tenant}/datasets/{name}/"


def tenant_dataset(tenant: str, name: str, version: int) -> str:
    """Which run a dataset's version is. Written once: who writes it has the version."""
    return f"tenants/{tenant}/datasets/{name}/{version:08d}.json"
