"""The engine's policy: fair queueing over tenants, their priorities and their jobs.

A tenant, a priority of a tenant, and a job of that each have a clock: the row-steps given so far, divided by their
weight. Down this tree the one furthest behind goes first, so that tenants get equal parts of a batch whatever they ask
for, a tenant's interactive jobs :data:`WEIGHTS` times the part of its bulk jobs, and jobs of one priority equal parts.
One that was idle comes back at the others' clocks: no credit is saved up, except one :data:`QUANTUM` by which a tenant
or a priority that was idle is served first.

A full batch is no reason to wait. Between any two steps a sample can be preempted (its state is kept, and it resumes
later with the same bits) for one that is behind and holds fewer slots, or is behind by a quantum.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar, cast

QUANTUM = 100.0
"""Row-steps of a guided sample of 50 steps: how far behind a sample must be to preempt another's only one."""

WEIGHTS = {"interactive": 4.0}
"""The weights of priorities; any other weighs 1."""

Path = tuple[str, str, str]
"""(tenant, priority, job)."""


class Schedulable(Protocol):
    """One sample that waits for a slot or holds one."""

    @property
    def path(self) -> Path: ...

    @property
    def rows(self) -> int: ...


S = TypeVar("S", bound=Schedulable)


@dataclass
class _Node:
    """A tenant, a priority of it, or a job of that."""

    order: int
    clock: float = 0.0
    waiting: int = 0
    slots: int = 0

    @property
    def busy(self) -> bool:
        """Whether it has a sample that waits or holds a slot."""
        return self.waiting > 0 or self.slots > 0


@dataclass
class FairQueue(Generic[S]):
    """The samples that wait for a slot in a batch, and the account of those that hold one."""

    _queues: dict[Path, deque[S]] = field(default_factory=dict)
    _nodes: dict[tuple[str, ...], _Node] = field(default_factory=dict)
    _created: int = 0

    def __len__(self) -> int:
        # a copy first, for other threads ask too
        return sum(map(len, list(self._queues.values())))

    @property
    def weight(self) -> float:
        """The largest weight of a priority that has samples here."""
        return max(
            (WEIGHTS.get(path[1], 1.0) for path, node in self._nodes.items() if len(path) == 2 and node.busy),
            default=1.0,
        )

    def add(self, sample: S) -> None:
        """Puts a sample at the end of its job's queue."""
        self._change(sample.path, waiting=1)
        self._queues.setdefault(sample.path, deque()).append(sample)

    def next(self) -> S | None:
        """The sample to admit next, which stays in the queue; None if none waits. A job's samples come in order."""
        if not self._queues:
            return None
        path: tuple[str, ...] = ()
        while len(path) < 3:
            children = {p[: len(path) + 1] for p in self._queues if p[: len(path)] == path}
            path = min(
                children,
                key=lambda child: (self._nodes[child].clock, self._nodes[child].slots, self._nodes[child].order),
            )
        return self._queues[cast(Path, path)][0]

    def admit(self, sample: S) -> None:
        """Moves the sample of :meth:`next` from the queue to a slot."""
        queue = self._queues[sample.path]
        assert queue[0] is sample
        self._drop_first(sample.path)
        self._change(sample.path, waiting=-1, slots=1)

    def forget(self, sample: S) -> None:
        """Removes a sample that is no longer wanted from the queue."""
        queue = self._queues[sample.path]
        queue.remove(sample)
        if not queue:
            del self._queues[sample.path]
        self._change(sample.path, waiting=-1)

    def preempt(self, sample: S) -> None:
        """Moves a sample from its slot back to the head of its job's queue."""
        self._change(sample.path, waiting=1, slots=-1)
        self._queues.setdefault(sample.path, deque()).appendleft(sample)

    def leave(self, sample: S) -> None:
        """Frees the slot of a sample that has ended."""
        self._change(sample.path, slots=-1)

    def charge(self, active: Iterable[S]) -> None:
        """Accounts for one step of these samples."""
        for sample in active:
            for depth, node in enumerate(self._nodes_of(sample.path)):
                # the weight counts between a tenant's priorities, and nowhere else
                node.clock += sample.rows / (_weight(sample.path) if depth == 1 else 1.0)

    def select_victims(self, candidate: S, active: list[S], free_rows: int) -> list[S]:
        """The samples of ``active``, in order of admission, to preempt for ``candidate``; empty if it must wait."""
        found: list[S] = []
        lost: dict[tuple[str, ...], int] = {}
        while free_rows < candidate.rows:
            left = [
                sample
                for sample in active
                if sample not in found and self._may_preempt(candidate.path, sample.path, lost)
            ]
            if not left:
                return []
            # of those furthest ahead the one admitted last, which loses the least by waiting
            victim = max(reversed(left), key=lambda sample: self._ahead(candidate.path, sample.path))
            found.append(victim)
            free_rows += victim.rows
            for depth in (1, 2, 3):
                lost[victim.path[:depth]] = lost.get(victim.path[:depth], 0) + 1
        return found

    def drain(self) -> list[S]:
        """Empties the queue and returns its samples."""
        everything = [sample for queue in self._queues.values() for sample in queue]
        for sample in everything:
            self.forget(sample)
        return everything

    def _may_preempt(self, candidate: Path, holder: Path, lost: dict[tuple[str, ...], int]) -> bool:
        depth = _divergence(candidate, holder)
        if depth is None:
            return False
        ours, theirs = self._nodes[candidate[:depth]], self._nodes[holder[:depth]]
        ahead = theirs.clock - ours.clock
        slots = theirs.slots - lost.get(holder[:depth], 0)
        return ahead >= QUANTUM or (ahead >= 0.0 and slots >= ours.slots + 2)

    def _ahead(self, candidate: Path, holder: Path) -> tuple[float, ...]:
        depth = _divergence(candidate, holder) or 3
        return tuple(self._nodes[holder[:level]].clock for level in range(depth, 4))

    def _change(self, path: Path, *, waiting: int = 0, slots: int = 0) -> None:
        for depth in (1, 2, 3):
            key = path[:depth]
            node = self._nodes.get(key)
            if node is None:
                self._created += 1
                node = self._nodes[key] = _Node(self._created)
            was_busy = node.busy
            node.waiting += waiting
            node.slots += slots
            if node.busy and not was_busy:
                others = [n.clock for k, n in self._siblings(key) if n.busy]
                if others:
                    node.clock = max(node.clock, min(others) - (QUANTUM if depth < 3 else 0.0))
        for depth in (3, 2, 1):
            self._prune(path[:depth])

    def _prune(self, key: tuple[str, ...]) -> None:
        """Deletes the node of an idle job, or of an idle tenant or priority that has no busy sibling."""
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

    def _nodes_of(self, path: Path) -> Iterator[_Node]:
        return (self._nodes[path[:depth]] for depth in (1, 2, 3))

    def _drop_first(self, path: Path) -> None:
        queue = self._queues[path]
        queue.popleft()
        if not queue:
            del self._queues[path]


def _weight(path: Path) -> float:
    return WEIGHTS.get(path[1], 1.0)


def _divergence(one: Path, other: Path) -> int | None:
    """The depth (1 to 3) at which two paths differ; None if they are of the same job."""
    return next((depth for depth in (1, 2, 3) if one[:depth] != other[:depth]), None)
