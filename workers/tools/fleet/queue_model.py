"""The rule of :mod:`service.broker.fair_queue` without Redis, for the simulator; a test compares both."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Generic, TypeVar

from service.broker.fair_queue import INTERACTIVE_SHARE, Flow

Work = TypeVar("Work")


class TenantQueuesModel(Generic[Work]):
    """What waits, by tenant and queue; ``queues`` in the order in which a tenant's are looked at."""

    def __init__(self, queues: tuple[str, ...]) -> None:
        self._queues = queues
        self._waiting: dict[Flow, deque[Work]] = {}
        self._served: dict[str, None] = {}
        """Tenants with work that waits; the one that had its turn longest ago comes first."""

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def add(self, flow: Flow, work: Work) -> None:
        """Puts ``work`` at the end of what waits in the flow."""
        self._waiting.setdefault(flow, deque()).append(work)
        self._served.setdefault(flow.tenant)

    def take(self, holds: Mapping[Flow, int]) -> tuple[Flow, Work] | None:
        """What comes next for a process that ``holds`` so much of each flow; None if nothing waits."""
        held: dict[str, int] = {}
        for flow, number in holds.items():
            held[flow.tenant] = held.get(flow.tenant, 0) + number
        best: str | None = None
        # one of so many holds nothing, and the first that does comes before all behind it
        for _, tenant in zip(range(len(held) + 1), self._served, strict=False):
            if best is None or held.get(tenant, 0) < held.get(best, 0):
                best = tenant
        if best is None:
            return None
        flow = self._flow_of(best, holds)
        waiting = self._waiting[flow]
        work = waiting.popleft()
        if not waiting:
            del self._waiting[flow]
        del self._served[best]
        if any(Flow(best, queue) in self._waiting for queue in self._queues):
            self._served[best] = None
        return flow, work

    def _flow_of(self, tenant: str, holds: Mapping[Flow, int]) -> Flow:
        waiting = [flow for queue in self._queues if (flow := Flow(tenant, queue)) in self._waiting]
        chosen = waiting[0]
        for flow in waiting[1:]:
            if holds.get(chosen, 0) >= INTERACTIVE_SHARE * (holds.get(flow, 0) + 1):
                chosen = flow
        return chosen
