"""Keys of runs.

{kind}s/{run}/spec.json  started.json  cancel.json  summary.json  swept.json   and what the run makes:
    a dataset (:mod:`service.datasets.stored.layout`), an export (:mod:`service.exports.location`), the rounds of an
    augmentation set (:mod:`service.store.round_keys`). Objects have keys of their own attempt
    (:mod:`service.store.immutable`), and a record that is written once names those that count
{kind}s/{run}/callbacks/{n:04d}.json             attempt n of its webhook (:mod:`service.webhooks.outbox`)
runs/open/{run}                                  no summary yet, or temporary objects still to be removed
runs/deleting/{run}                              deleted; its objects are being removed
tenants/{tenant}/runs/{kind}s/{run}              the entry in the list of its tenant's runs
tenants/{tenant}/datasets/{name}/{version}.json  the run of a dataset's name and version
"""

from __future__ import annotations

from service.kit.run_kinds import RunKind, kind_of


def kind_prefix(kind: RunKind) -> str:
    """The prefix of all runs of a kind, of all tenants."""
    return f"{kind.plural}/"


def run_prefix(run: str) -> str:
    """The prefix of a run's objects. Raises ValueError for a text that is not a run's id."""
    kind = kind_of(run)
    if kind is None:
        raise ValueError(f"{run!r} is not a run's id")
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


def run_swept(run: str) -> str:
    """The mark that the ended run was searched for objects that it does not keep."""
    return f"{run_prefix(run)}swept.json"


def run_callbacks_prefix(run: str) -> str:
    return f"{run_prefix(run)}callbacks/"


def run_callback(run: str, attempt: int) -> str:
    """The record of attempt ``attempt`` (1, 2, ...) at the run's webhook."""
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
    """The entry in the list of the tenant's runs; an empty object, only its key counts."""
    kind = kind_of(run)
    assert kind is not None
    return f"{tenant_runs_prefix(tenant, kind)}{run}"


def tenant_datasets_prefix(tenant: str) -> str:
    return f"tenants/{tenant}/datasets/"


def tenant_dataset_prefix(tenant: str, name: str) -> str:
    return f"tenants/{tenant}/datasets/{name}/"


def tenant_dataset(tenant: str, name: str, version: int) -> str:
    """The run of a dataset's version. Written once: the run that writes it first gets the version."""
    return f"tenants/{tenant}/datasets/{name}/{version:08d}.json"
