"""Who computes next: the engine's one policy, fair queueing over tenants, their priorities, and their jobs.

A tenant, a priority of a tenant, and a job of that each have a clock: the row-steps given so far, divided by their
weight. Down this tree the one furthest behind goes first, so that tenants get equal parts of a batch whatever they ask
for, a tenant's interactive jobs :data:`WEIGHTS` times the part of its bulk jobs, and jobs of one kind equal parts.
Whoever was idle comes back at the others' clocks: no credit is saved up, except one :data:`QUANTUM` by which a tenant
or a kind that was idle is served first.

A batch that is full is no reason to wait. A sample's place can be taken between any two steps (it is parked as it
stands and goes on later with the same bits) for somebody who is behind and holds fewer places, or is behind by a
quantum.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

QUANTUM = 100.0
"""Row-steps: a guided sample of 50 steps. The least by which one must be behind to take another's only place."""

WEIGHTS = {"interactive": 4.0}
"""Of the priorities; any other weighs 1."""

Path = tuple[str, str, str]
"""(tenant, priority, job)."""


class Claim(Protocol):
    """One sample that waits for a place or holds one."""

    @property
    def path(self) -> Path: ...

    @property
    def rows(self) -> int: ...


C = TypeVar("C", bound=Claim)


@dataclass
class _Node:
    """A tenant, a priority of it, or a job of that."""

    order: int
    clock: float = 0.0
    waiting: int = 0
    places: int = 0

    @property
    def busy(self) -> bool:
        return self.waiting > 0 or self.places > 0


@dataclass
class FairQueue(Generic[C]):
    """The samples that wait for a place in a batch, and the account of those that hold one."""

    _queues: dict[Path, deque[C]] = field(default_factory=dict)
    _nodes: dict[tuple[str, ...], _Node] = field(default_factory=dict)
    _entered: int = 0

    def __len__(self) -> int:
        # a copy first, for other threads ask too
        return sum(map(len, list(self._queues.values())))

    @property
    def weight(self) -> float:
        """The largest weight of a priority at work here."""
        return max(
            (WEIGHTS.get(path[1], 1.0) for path, node in self._nodes.items() if len(path) == 2 and node.busy),
            default=1.0,
        )

    def add(self, claim: C) -> None:
        """Puts a sample at the end of its job's queue."""
        self._change(claim.path, waiting=1)
        self._queues.setdefault(claim.path, deque()).append(claim)

    def next(self) -> C | None:
        """The sample to admit next, which stays in the queue; None if none waits. Within a job, first come first
        served."""
        if not self._queues:
            return None
        path: tuple[str, ...] = ()
        while len(path) < 3:
            children = {p[: len(path) + 1] for p in self._queues if p[: len(path)] == path}
            path = min(
                children,
                key=lambda child: (self._nodes[child].clock, self._nodes[child].places, self._nodes[child].order),
            )
        return self._queues[path][0]  # type: ignore[index]

    def admit(self, claim: C) -> None:
        """Takes :meth:`next`'s sample out of the queue, as it gets a place."""
        queue = self._queues[claim.path]
        assert queue[0] is claim
        self._drop_first(claim.path)
        self._change(claim.path, waiting=-1, places=1)

    def forget(self, claim: C) -> None:
        """Takes a sample that is no longer wanted out of the queue."""
        queue = self._queues[claim.path]
        queue.remove(claim)
        if not queue:
            del self._queues[claim.path]
        self._change(claim.path, waiting=-1)

    def preempt(self, claim: C) -> None:
        """Takes a sample's place away; it is the next of its job to get one."""
        self._change(claim.path, waiting=1, places=-1)
        self._queues.setdefault(claim.path, deque()).appendleft(claim)

    def leave(self, claim: C) -> None:
        """A sample that held a place has ended."""
        self._change(claim.path, places=-1)

    def charge(self, active: Iterable[C]) -> None:
        """One step was made of these samples."""
        for claim in active:
            for depth, node in enumerate(self._on_the_way(claim.path)):
                # the weight counts between a tenant's priorities, and nowhere else
                node.clock += claim.rows / (_weight(claim.path) if depth == 1 else 1.0)

    def select_victims(self, candidate: C, active: list[C], free_rows: int) -> list[C]:
        """Who must give up their places so that ``candidate`` fits; empty if they need not. ``active`` in order of
        admission."""
        found: list[C] = []
        lost: dict[tuple[str, ...], int] = {}
        while free_rows < candidate.rows:
            left = [
                claim for claim in active if claim not in found and self._may_take(candidate.path, claim.path, lost)
            ]
            if not left:
                return []
            # of those furthest ahead the one that came last, which loses the least by waiting
            victim = max(reversed(left), key=lambda claim: self._ahead(candidate.path, claim.path))
            found.append(victim)
            free_rows += victim.rows
            for depth in (1, 2, 3):
                lost[victim.path[:depth]] = lost.get(victim.path[:depth], 0) + 1
        return found

    def drain(self) -> list[C]:
        """Takes everything out that waits."""
        everything = [claim for queue in self._queues.values() for claim in queue]
        for claim in everything:
            self.forget(claim)
        return everything

    def _may_take(self, taker: Path, holder: Path, lost: dict[tuple[str, ...], int]) -> bool:
        depth = _parting(taker, holder)
        if depth is None:
            return False
        ours, theirs = self._nodes[taker[:depth]], self._nodes[holder[:depth]]
        ahead = theirs.clock - ours.clock
        places = theirs.places - lost.get(holder[:depth], 0)
        return ahead >= QUANTUM or (ahead >= 0.0 and places >= ours.places + 2)

    def _ahead(self, taker: Path, holder: Path) -> tuple[float, ...]:
        depth = _parting(taker, holder) or 3
        return tuple(self._nodes[holder[:level]].clock for level in range(depth, 4))

    def _change(self, path: Path, *, waiting: int = 0, places: int = 0) -> None:
        for depth in (1, 2, 3):
            key = path[:depth]
            node = self._nodes.get(key)
            if node is None:
                self._entered += 1
                node = self._nodes[key] = _Node(self._entered)
            was_busy = node.busy
            node.waiting += waiting
            node.places += places
            if node.busy and not was_busy:
                others = [n.clock for k, n in self._siblings(key) if n.busy]
                if others:
                    node.clock = max(node.clock, min(others) - (QUANTUM if depth < 3 else 0.0))
        for depth in (3, 2, 1):
            self._prune(path[:depth])

    def _prune(self, key: tuple[str, ...]) -> None:
        """A job that is done is forgotten; a tenant or a kind once nobody is left who could be ahead of it."""
        node = self._nodes.get(key)
        if node is None or node.busy:
            return
        if len(key) == 3:
            del self._nodes[key]
        elif not any(other.busy for _, other in self._siblings(key)):
            for name in [k for k, _ in self._siblings(key)] + [key]:
                del self._nodes[name]

    def _siblings(self, key: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], _Node]]:
        for other, node in self._nodes.items():
            if len(other) == len(key) and other[:-1] == key[:-1] and other != key:
                yield other, node

    def _on_the_way(self, path: Path) -> Iterator[_Node]:
        return (self._nodes[path[:depth]] for depth in (1, 2, 3))

    def _drop_first(self, path: Path) -> None:
        queue = self._queues[path]
        queue.popleft()
        if not queue:
            del self._queues[path]


def _weight(path: Path) -> float:
    return WEIGHTS.get(path[1], 1.0)


def _parting(one: Path, other: Path) -> int | None:
    """The depth at which two paths part; None if they are the same job's."""
    return next((depth for depth in (1, 2, 3) if one[:depth] != other[:depth]), None)
