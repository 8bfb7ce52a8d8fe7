"""The keyed pool: a slow key does not delay the others, and no task is lost."""

from __future__ import annotations

import threading
import time

from workers.runtime.keyed_pool import KeyedPool


def test_every_task_runs_once_and_no_key_and_no_pool_has_more_threads_than_allowed() -> None:
    pool = KeyedPool("test", max_threads=20, max_threads_per_key=2)
    lock = threading.Lock()
    running: dict[str, int] = {}
    widest: dict[str, int] = {}
    done: list[str] = []

    def work(group: str, key: str) -> None:
        with lock:
            running[group] = running.get(group, 0) + 1
            widest[group] = max(widest.get(group, 0), running[group])
            widest["all"] = max(widest.get("all", 0), sum(running.values()))
        time.sleep(0.002)
        with lock:
            running[group] -= 1
            done.append(key)

    keys = [f"{group}{number}" for number in range(20) for group in "abcde"]
    for key in keys:
        pool.add("lane", key[0], key, lambda key=key: work(key[0], key))
    assert pool.wait(20)
    assert sorted(done) == sorted(keys)
    assert widest.pop("all") == 10
    assert max(widest.values()) <= 2
    meeting = threading.Barrier(2)
    for number in range(2):
        pool.add("lane", "a", f"meets {number}", lambda: meeting.wait(10))
    assert pool.wait(20)
    assert not meeting.broken, "a key may have two threads at once"


def test_a_key_whose_tasks_hang_does_not_delay_the_others() -> None:
    pool = KeyedPool("test", max_threads=6, max_threads_per_key=2)
    hold, done = threading.Event(), []
    for number in range(5):
        pool.add("lane", "slow", f"slow{number}", lambda: hold.wait(20) and done.append("slow"))
    for number in range(5):
        pool.add("lane", "quick", f"quick{number}", lambda: done.append("quick"))
    deadline = time.monotonic() + 10
    while done.count("quick") < 5:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert done == ["quick"] * 5
    assert not pool.wait(0.01)
    hold.set()
    assert pool.wait(20)
    assert done.count("slow") == 5


def test_a_task_is_known_until_it_has_ended_and_can_be_dropped_before_it_begins() -> None:
    pool = KeyedPool("test", max_threads=1, max_threads_per_key=1)
    begun, hold, done = threading.Event(), threading.Event(), []

    def first() -> None:
        begun.set()
        hold.wait(20)
        done.append("first")

    pool.add("lane", "a", "first", first)
    assert begun.wait(20)
    pool.add("lane", "a", "first", lambda: done.append("the same once more"))
    pool.add("lane", "a", "second", lambda: done.append("second"))
    assert "first" in pool
    assert "second" in pool
    pool.drop_waiting()
    assert "first" in pool
    assert "second" not in pool
    hold.set()
    assert pool.wait(20)
    assert done == ["first"]


def test_a_task_that_fails_affects_no_other() -> None:
    pool = KeyedPool("test", max_threads=1, max_threads_per_key=1)
    done: list[str] = []

    def fail() -> None:
        raise RuntimeError("the test says so")

    pool.add("lane", "a", "fails", fail)
    pool.add("lane", "a", "goes on", lambda: done.append("goes on"))
    assert pool.wait(20)
    assert done == ["goes on"]
    pool.add("lane", "a", "fails", lambda: done.append("a second time"))
    assert pool.wait(20)
    assert done == ["goes on", "a second time"]


def test_a_lane_of_keys_that_hang_leaves_threads_to_other_lanes() -> None:
    pool = KeyedPool("test", max_threads=8, max_threads_per_key=2)
    hold, lock = threading.Event(), threading.Lock()
    running: dict[str, int] = {}

    def hang(lane: str) -> None:
        with lock:
            running[lane] = running.get(lane, 0) + 1
        hold.wait(20)

    widest = {}
    for lane, expected in (("acme", 4), ("birch", 2), ("cedar", 1), ("dogwood", 1), ("elm", 0)):
        for number in range(40):
            assert pool.add(lane, f"receiver {number}", f"{lane} {number}", lambda lane=lane: hang(lane))
        deadline = time.monotonic() + 5
        while running.get(lane, 0) < expected and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(0.02)
        widest[lane] = running.get(lane, 0)
    assert widest == {"acme": 4, "birch": 2, "cedar": 1, "dogwood": 1, "elm": 0}
    hold.set()
    assert pool.wait(20)
    assert running == dict.fromkeys(widest, 40)


def test_a_lanes_queue_is_bounded_and_no_other_lane_is_refused() -> None:
    pool = KeyedPool("test", max_threads=2, max_threads_per_key=1, max_waiting_per_lane=3)
    hold = threading.Event()
    accepted = [pool.add("acme", "a", str(number), lambda: hold.wait(20)) for number in range(6)]
    assert accepted.count(True) in (3, 4), "one runs, and three wait"
    assert not accepted[-1]
    assert pool.add("acme", "a", "0", lambda: None), "what waits or runs is not refused"
    assert pool.add("birch", "b", "another", lambda: None)
    hold.set()
    assert pool.wait(20)
