"""Runs whose specs a newer API wrote: members that this version does not know change nothing, and are kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.store import ObjectStore, run_keys
from tests.workers.bulk.conftest import RecordingRunQueue, dataset_tar, send
from workers.bulk.execute import RunOutcome

Execute = Callable[[str], RunOutcome]
FREE = ("request", "rename", "objects", "made_from", "split_map", "metadata", "parameters", "splits")
"""Members whose own members are the user's words, not fields."""


def with_later_members(value: Any, name: str = "") -> Any:
    """The value with one more member in every object that has fields."""
    if isinstance(value, list):
        return [with_later_members(each, name) for each in value]
    if not isinstance(value, dict) or name in FREE:
        return value
    return {**{key: with_later_members(each, key) for key, each in value.items()}, "later": {"of": "a newer version"}}


def rewrite(store: ObjectStore, key: str) -> None:
    store.put(key, json.dumps(with_later_members(json.loads(store.get(key)))).encode())


def test_a_worker_of_one_version_back_executes_a_newer_apis_runs(
    client: TestClient, store: ObjectStore, execute: Execute, run_queue: RecordingRunQueue
) -> None:
    send(client, dataset_tar(6))
    dataset = run_queue.sent[-1]
    rewrite(store, run_keys.run_spec(dataset))
    assert execute(dataset) is RunOutcome.ENDED
    rewrite(store, run_keys.run_summary(dataset))
    assert client.get("/datasets/scenes").json()["state"] == "succeeded"
    body = {"sources": [{"dataset": "scenes"}], "format": "coco", "splits": {"train": 0.5, "val": 0.5}}
    export = client.post("/exports", json=body).json()["id"]
    rewrite(store, run_keys.run_spec(export))
    assert execute(export) is RunOutcome.ENDED
    view = client.get(f"/exports/{export}").json()
    assert (view["state"], view["items"]) == ("succeeded", {"real": 6, "synthetic": 0})
    assert json.loads(store.get(run_keys.run_spec(export)))["later"] == {"of": "a newer version"}


@pytest.mark.parametrize("format", [2, 99])
def test_a_newer_format_is_said_as_such_and_the_run_waits_for_a_newer_worker(
    client: TestClient,
    store: ObjectStore,
    execute: Execute,
    run_queue: RecordingRunQueue,
    caplog: pytest.LogCaptureFixture,
    format: int,
) -> None:
    send(client, dataset_tar(2))
    dataset = run_queue.sent[-1]
    key = run_keys.run_spec(dataset)
    store.put(key, json.dumps({**json.loads(store.get(key)), "format": format}).encode())
    with caplog.at_level("INFO"):
        assert execute(dataset) is not RunOutcome.ENDED
    assert (
        f"has format {format}, which a newer version of Twinset wrote; this version reads formats up to 1"
        in caplog.text
    )
    assert "Traceback" not in caplog.text
    assert store.head(run_keys.run_summary(dataset)) is None
