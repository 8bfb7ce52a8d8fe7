"""Slots of plans: a few at the same time, a few of each tenant, and each in its turn."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from service.augmentations.planning import PlanSlots, plan_gate
from service.datasets.stored import layout
from service.errors import LimitReached
from service.sandbox.frames import ProtocolBroken
from service.store.folder import FolderStore
from tests.waiting import until


def hold(slots: PlanSlots, tenant: str, began: list[str], release: threading.Event) -> threading.Thread:
    def run() -> None:
        with slots.slot(tenant):
            began.append(tenant)
            release.wait(10)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_plans_take_turns_and_a_tenant_has_only_a_few() -> None:
    slots, began, release = PlanSlots(running=2, max_waiting=2, max_of_tenant=3), [], threading.Event()
    threads = []
    for number in range(3):
        threads.append(hold(slots, "mallory", began, release))
        until(lambda number=number: slots._here["mallory"] == number + 1)
    assert began == ["mallory", "mallory"]
    with pytest.raises(LimitReached, match="3 plans of this tenant are being made") as caught, slots.slot("mallory"):
        pass
    assert caught.value.headers["Retry-After"] == "5"
    threads.append(hold(slots, "victim", began, release))
    until(lambda: slots._here["victim"] == 1)
    with pytest.raises(LimitReached, match="and 4 in all; the limits are 3 and 4"), slots.slot("another"):
        pass
    release.set()
    for thread in threads:
        thread.join(10)
    assert sorted(began) == ["mallory", "mallory", "mallory", "victim"]
    assert not slots._turns
    assert not +slots._here


def test_nobody_waits_for_ever() -> None:
    slots, release = PlanSlots(running=1, wait_s=0.2), threading.Event()
    thread = hold(slots, "a", [], release)
    until(lambda: slots._here["a"] == 1)
    start = time.monotonic()
    with pytest.raises(LimitReached, match=r"other plans took longer than 0\.2 s"), slots.slot("b"):
        pass
    assert time.monotonic() - start < 2
    release.set()
    thread.join(10)
    with slots.slot("b"):
        pass


def test_the_gate_of_a_plan_reads_its_dataset_and_nothing_else(tmp_path: Path) -> None:
    store = FolderStore(tmp_path, link_secret=b"0" * 16, public_url="http://localhost")
    run, other = "d7ybr17pesw6kn47yb0", "d7ybr17pesw6kn47yb1"
    for key in (layout.about(run), layout.about(other), "keys/4mw1y7kq02zt.json"):
        store.put(key, b"{}")
    gate = plan_gate(store, run)
    assert gate.answer("get", {"key": layout.about(run)}, b"") == ({}, b"{}")
    for call, key in (("get", layout.about(other)), ("head", "keys/4mw1y7kq02zt.json"), ("put", layout.about(run))):
        with pytest.raises(ProtocolBroken):
            gate.answer(call, {"key": key}, b"")
