"""The fair queue over a real Redis: which tenant comes next, and how long a single waits beside a flood, in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from redis import Redis

from service.broker import redis_keys
from service.broker.fair_queue import (
    INTERACTIVE_SHARE,
    Flow,
    QueuedItem,
    TenantQueues,
)
from service.broker.queues import CHUNK_QUEUES, GENERATE_QUEUE, INTERACTIVE_QUEUE
from service.local.broker import EmbeddedBroker


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(Path(tmp_path_factory.mktemp("broker"))) as broker:
        yield broker


@pytest.fixture
def fair_queue(broker: EmbeddedBroker) -> Iterator[TenantQueues]:
    redis = Redis.from_url(broker.url, decode_responses=True)
    redis.flushall()
    yield TenantQueues(redis, CHUNK_QUEUES)
    redis.close()


def send(fair_queue: TenantQueues, tenant: str, *names: str, queue: str = GENERATE_QUEUE) -> None:
    fair_queue.add(Flow(tenant, queue), {name: f"message of {name}" for name in names})


def take_all(fair_queue: TenantQueues, slots: int = 8, holds: Counter[Flow] | None = None) -> list[str]:
    """The names of all turns, in order. With ``holds`` each is held, and none ends."""
    names = []
    while (taken := fair_queue.take(holds or {}, slots)) is not None:
        names.append(taken.name)
        if holds is not None:
            holds[taken.flow] += 1
    return names


def test_tenants_take_turns_and_a_tenants_work_comes_in_its_order(fair_queue: TenantQueues) -> None:
    send(fair_queue, "acme", *(f"a{number}" for number in range(5)))
    send(fair_queue, "birch", "b0", "b1")
    send(fair_queue, "cedar", "c0")
    assert take_all(fair_queue) == ["a0", "b0", "c0", "a1", "b1", "a2", "a3", "a4"]
    assert fair_queue.redis.llen(GENERATE_QUEUE) == 8
    assert fair_queue.redis.zcard(redis_keys.fair_queue("chunks")) == 0


def test_the_tenant_of_which_the_process_holds_least_comes_next(fair_queue: TenantQueues) -> None:
    send(fair_queue, "acme", "a0", "a1", "a2")
    send(fair_queue, "birch", "b0", "b1", "b2", "b3")
    holds = Counter({Flow("acme", GENERATE_QUEUE): 2})
    assert take_all(fair_queue, holds=holds) == ["b0", "b1", "a0", "b2", "a1", "b3", "a2"]


def test_interactive_work_comes_first_within_its_tenant_and_leaves_room_for_the_rest(fair_queue: TenantQueues) -> None:
    send(fair_queue, "acme", *(f"n{number}" for number in range(3)))
    send(fair_queue, "acme", *(f"i{number}" for number in range(12)), queue=INTERACTIVE_QUEUE)
    holds: Counter[Flow] = Counter()
    order = "".join(name[0] for name in take_all(fair_queue, slots=16, holds=holds))
    assert INTERACTIVE_SHARE == 4
    assert order == "iiiiniiiiniiiin"


def test_below_the_share_only_tenants_with_less_than_an_equal_part_are_served(fair_queue: TenantQueues) -> None:
    flow = Flow("acme", GENERATE_QUEUE)
    send(fair_queue, "acme", "a0", "a1")
    assert fair_queue.take({flow: 8}, 8, below_share=True) is None, "the only tenant has all slots already"
    send(fair_queue, "birch", "b0", "b1", "b2", "b3", "b4")
    holds = Counter({flow: 8})
    taken = []
    while (turn := fair_queue.take(holds, 8, below_share=True)) is not None:
        holds[turn.flow] += 1
        taken.append(turn.name)
    assert taken == ["b0", "b1", "b2", "b3"], "half of eight slots"
    send(fair_queue, "cedar", "c0")
    assert fair_queue.take(holds, 8, below_share=True) == QueuedItem(Flow("cedar", GENERATE_QUEUE), "c0")
    send(fair_queue, "acme", "i0", queue=INTERACTIVE_QUEUE)
    assert fair_queue.take(holds, 8, below_share=True) == QueuedItem(Flow("acme", INTERACTIVE_QUEUE), "i0")


def test_a_name_waits_once_and_messages_that_are_lacking_are_found(fair_queue: TenantQueues) -> None:
    send(fair_queue, "acme", "a0", "a1")
    send(fair_queue, "acme", "a0")
    send(fair_queue, "birch", "b0", queue=INTERACTIVE_QUEUE)
    assert fair_queue.without_message(10) == []
    assert fair_queue.waiting(Flow("acme", GENERATE_QUEUE), ["a0", "a2"]) == {"a0"}
    fair_queue.redis.delete(GENERATE_QUEUE)
    assert [turn.name for turn in fair_queue.without_message(10)] == ["a0", "a1"]
    assert [turn.name for turn in fair_queue.without_message(1)] == ["a0"]
    assert take_all(fair_queue) == ["a0", "b0", "a1"]


def test_lists_that_redis_evicted_stop_nobody(fair_queue: TenantQueues) -> None:
    for tenant in ("acme", "birch", "cedar"):
        send(fair_queue, tenant, f"{tenant} 0")
    fair_queue.redis.delete(redis_keys.waiting(GENERATE_QUEUE, "acme"), redis_keys.waiting(GENERATE_QUEUE, "birch"))
    assert take_all(fair_queue) == ["cedar 0"]


def test_thousands_of_tenants_take_turns_each_once_a_round(fair_queue: TenantQueues) -> None:
    for number in range(3000):
        send(fair_queue, f"t{number}", f"{number} first", f"{number} second")
    names = take_all(fair_queue)
    assert names[:3000] == [f"{number} first" for number in range(3000)]
    assert names[3000:] == [f"{number} second" for number in range(3000)]


@dataclass
class Simulated:
    """A worker of eight slots in simulated time, whose engine gives tenants equal parts of a chunk a second.

    ``fair``: takes turns, and more than its slots for tenants below their share; otherwise first come, first served.
    """

    fair_queue: TenantQueues
    fair: bool
    slots: int = 8
    now_s: float = 0.0
    left: dict[QueuedItem, float] = field(default_factory=dict)
    ended_s: dict[str, float] = field(default_factory=dict)
    holds: Counter[Flow] = field(default_factory=Counter)
    queue: list[QueuedItem] = field(default_factory=list)

    def send(self, tenant: str, *names: str) -> None:
        send(self.fair_queue, tenant, *names)
        self.queue += [QueuedItem(Flow(tenant, GENERATE_QUEUE), name) for name in names]

    def run(self, until_s: float, work: dict[str, float]) -> None:
        """Goes on to ``until_s``; ``work`` has the seconds that a name takes alone, one if it is not there."""
        tick_s = 0.05
        while self.now_s < until_s:
            while (taken := self._next()) is not None:
                self.left[taken] = work.get(taken.name, 1.0)
                self.holds[taken.flow] += 1
            self.now_s += tick_s
            tenants = len({turn.flow.tenant for turn in self.left})
            for turn in list(self.left):
                self.left[turn] -= tick_s / tenants / self.holds[turn.flow]
            for turn in [turn for turn, left_s in self.left.items() if left_s <= 1e-9]:
                del self.left[turn]
                self.holds[turn.flow] -= 1
                self.holds = +self.holds
                self.ended_s[turn.name] = self.now_s

    def _next(self) -> QueuedItem | None:
        full = len(self.left) >= self.slots
        if self.fair:
            return self.fair_queue.take(self.holds, self.slots, below_share=full)
        return None if full or not self.queue else self.queue.pop(0)


def test_a_single_beside_a_flood_takes_twice_its_time_alone_where_first_come_first_served_takes_800_times(
    fair_queue: TenantQueues,
) -> None:
    single_s = 0.25
    waited = {}
    for fair in (True, False):
        fair_queue.redis.flushall()
        worker = Simulated(fair_queue, fair)
        worker.send("acme", *(f"a{number}" for number in range(200)))
        worker.run(5.0, {})
        worker.send("birch", "single")
        worker.run(220.0, {"single": single_s})
        waited[fair] = (worker.ended_s["single"] - 5.0) / single_s
        assert len(worker.ended_s) == 201, "and the flood is done as well"
    assert waited[True] == pytest.approx(2.0, abs=0.4), "two tenants have half of the engine each"
    assert waited[False] > 700


def test_two_floods_get_equal_parts_and_a_third_tenants_single_its_third(fair_queue: TenantQueues) -> None:
    worker = Simulated(fair_queue, fair=True)
    worker.send("acme", *(f"a{number}" for number in range(150)))
    worker.run(10.0, {})
    worker.send("birch", *(f"b{number}" for number in range(150)))
    worker.run(60.0, {})
    done = {first: sum(name[0] == first and ended > 10 for name, ended in worker.ended_s.items()) for first in "ab"}
    assert abs(done["a"] - done["b"]) <= 8, done
    worker.send("cedar", "single")
    worker.run(70.0, {"single": 1.0})
    assert worker.ended_s["single"] - 60.0 == pytest.approx(3.0, abs=0.3)
