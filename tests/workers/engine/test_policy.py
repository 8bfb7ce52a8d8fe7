"""The policy by simulation: thousands of steps of a batch without a network; no job starves and shares hold."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from workers.engine.policy import QUANTUM, WEIGHTS, FairQueue


@dataclass(eq=False)
class Sample:
    """A sample of ``steps`` steps, with the steps at which it came, was first admitted and ended."""

    path: tuple[str, str, str]
    steps: int = 50
    rows: int = 2
    came: int = 0
    admitted: int | None = None
    ended: int | None = None
    done: int = 0


@dataclass
class Batch:
    """What the engine's batch does with the policy, and nothing else."""

    rows: int = 8
    queue: FairQueue[Sample] = field(default_factory=FairQueue)
    active: list[Sample] = field(default_factory=list)
    now: int = 0
    given: Counter[str] = field(default_factory=Counter)
    preemptions: int = 0

    def add(self, *samples: Sample) -> None:
        for sample in samples:
            sample.came = self.now
            self.queue.add(sample)

    def step(self) -> None:
        while (sample := self.queue.next()) is not None:
            free = self.rows - sum(s.rows for s in self.active)
            if sample.rows > free:
                victims = self.queue.select_victims(sample, self.active, free)
                if not victims:
                    break
                for victim in victims:
                    self.active.remove(victim)
                    self.queue.preempt(victim)
                    self.preemptions += 1
            self.queue.admit(sample)
            self.active.append(sample)
            sample.admitted = self.now if sample.admitted is None else sample.admitted
        assert sum(s.rows for s in self.active) <= self.rows
        self.queue.charge(self.active)
        self.now += 1
        for sample in list(self.active):
            sample.done += 1
            for name in ("/".join(sample.path[:depth]) for depth in (1, 2, 3)):
                self.given[name] += sample.rows
            if sample.done == sample.steps:
                sample.ended = self.now
                self.active.remove(sample)
                self.queue.leave(sample)

    def run(self, steps: int, refill: Callable[[], None] = lambda: None) -> None:
        for _ in range(steps):
            refill()
            self.step()


def keep_waiting(batch: Batch, path: tuple[str, str, str], **changes: int) -> Callable[[], None]:
    """Keeps a few samples of a job in the queue at all times: a job that takes all it can get."""
    backlog: list[Sample] = []

    def refill() -> None:
        backlog[:] = [s for s in backlog if s.admitted is None]
        while len(backlog) < 8:
            backlog.append(Sample(path, **changes))
            batch.add(backlog[-1])

    return refill


def together(*refills: Callable[[], None]) -> Callable[[], None]:
    return lambda: [refill() for refill in refills] and None


def test_samples_of_a_job_come_in_their_order_and_fill_the_batch() -> None:
    batch = Batch(rows=8)
    samples = [Sample(("t", "normal", "j")) for _ in range(12)]
    batch.add(*samples)
    batch.run(150)
    assert [s.ended for s in samples] == [50] * 4 + [100] * 4 + [150] * 4
    assert len(batch.queue) == 0
    assert not batch.queue._nodes, "no node is left of jobs that are gone"


@pytest.mark.parametrize("priority", ["normal", "interactive"])
@pytest.mark.parametrize("tenant", ["t", "other"])
def test_a_job_of_one_is_admitted_within_one_step_beside_a_bulk_job_and_runs_on(tenant: str, priority: str) -> None:
    batch = Batch(rows=4)
    bulk = [Sample(("t", "normal", "bulk")) for _ in range(100)]
    batch.add(*bulk)
    batch.run(20)
    single = Sample((tenant, priority, "single"))
    batch.add(single)
    batch.run(5000)
    assert single.admitted == single.came
    assert single.ended == single.came + single.steps, "it is not preempted itself"
    assert all(s.ended is not None for s in bulk)


def test_jobs_share_equally_and_so_do_tenants_whatever_they_ask_for() -> None:
    batch = Batch(rows=8)
    refill = together(
        keep_waiting(batch, ("a", "normal", "1")),
        keep_waiting(batch, ("a", "normal", "2"), steps=10),
        keep_waiting(batch, ("a", "normal", "3"), rows=1),
        keep_waiting(batch, ("b", "normal", "4"), steps=200),
    )
    batch.run(6000, refill)
    assert batch.given["a"] == pytest.approx(batch.given["b"], rel=0.05)
    for job in "123":
        assert batch.given[f"a/normal/{job}"] == pytest.approx(batch.given["a"] / 3, rel=0.08)


@pytest.mark.parametrize("rows", [4, 8, 32])
def test_interactive_jobs_get_their_share_and_bulk_never_starves(rows: int) -> None:
    batch = Batch(rows=rows)
    singles = iter(range(10**9))

    def always_a_few_singles() -> None:
        waiting = sum(len(queue) for path, queue in batch.queue._queues.items() if path[1] == "interactive")
        for _ in range(waiting, 8):
            batch.add(Sample(("t", "interactive", f"single-{next(singles)}")))

    batch.run(8000, together(keep_waiting(batch, ("t", "normal", "bulk")), always_a_few_singles))
    share = batch.given["t/interactive"] / batch.given["t"]
    wanted = WEIGHTS["interactive"] / (WEIGHTS["interactive"] + 1)
    assert share == pytest.approx(wanted, abs=0.05)
    assert batch.given["t/normal"] > 0


def test_two_that_share_one_slot_alternate_by_the_quantum_not_by_the_step() -> None:
    batch = Batch(rows=2)
    refill = together(
        keep_waiting(batch, ("a", "normal", "1"), steps=1000), keep_waiting(batch, ("b", "normal", "2"), steps=1000)
    )
    batch.run(6000, refill)
    assert batch.given["a"] == pytest.approx(batch.given["b"], rel=0.05)
    assert 1 < batch.preemptions <= 6000 * 2 / QUANTUM + 2


def test_an_idle_tenant_saves_up_no_credit() -> None:
    batch = Batch(rows=4)
    busy = keep_waiting(batch, ("busy", "normal", "1"))
    lazy = Sample(("lazy", "normal", "2"), steps=1)
    batch.add(lazy)
    batch.run(5000, busy)
    before = batch.given["busy"]
    batch.run(500, together(busy, keep_waiting(batch, ("lazy", "normal", "3"))))
    assert batch.given["busy"] - before >= (500 * 4 - 2 * QUANTUM) / 2 * 0.95


def test_samples_that_come_at_random_are_done_in_time_and_the_batch_is_never_idle() -> None:
    draw, batch = random.Random(5), Batch(rows=8)
    samples_so_far: list[Sample] = []
    for _ in range(4000):
        if draw.random() < 0.02:
            path = (draw.choice("abc"), draw.choice(["normal", "normal", "interactive"]), f"job-{len(samples_so_far)}")
            samples = [
                Sample(path, steps=draw.choice([5, 20, 50]), rows=draw.choice([1, 2]))
                for _ in range(draw.choice([1, 1, 4, 9]))
            ]
            samples_so_far += samples
            batch.add(*samples)
        batch.step()
    batch.run(4000)
    assert len(samples_so_far) > 200
    assert all(s.done == s.steps for s in samples_so_far)
    assert max(s.ended - s.came for s in samples_so_far if s.ended is not None) < 2000


def test_samples_of_one_row_do_not_overtake_one_of_two_rows() -> None:
    batch = Batch(rows=2)
    ones = keep_waiting(batch, ("t", "normal", "ones"), rows=1, steps=3)
    batch.run(4, ones)
    guided = Sample(("t", "normal", "guided"))
    batch.add(guided)
    batch.run(400, ones)
    assert guided.ended is not None
