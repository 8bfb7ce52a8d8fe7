"""Who is admitted next: groups (jobs) take turns, so that a job of one never queues behind a bulk job's samples."""

from __future__ import annotations

from collections import OrderedDict, deque

from workers.engine.sample import Waiting


class Turns:
    """A queue of queues: first come first served within a group, one each in turn between groups."""

    def __init__(self) -> None:
        self._groups: OrderedDict[str, deque[Waiting]] = OrderedDict()

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._groups.values())

    def add(self, waiting: Waiting) -> None:
        """Puts a sample at the end of its group's queue."""
        self._groups.setdefault(waiting.request.group, deque()).append(waiting)

    def take(self, free_rows: int) -> Waiting | None:
        """The next sample, or None when there is none or it needs more than ``free_rows``.

        A sample that does not fit yet is waited for, not jumped: otherwise one-row samples could starve guided ones.
        """
        while self._groups:
            group, queue = next(iter(self._groups.items()))
            while queue and queue[0].future.cancelled():
                queue.popleft()
            if not queue:
                del self._groups[group]
                continue
            if queue[0].rows > free_rows:
                return None
            waiting = queue.popleft()
            if queue:
                self._groups.move_to_end(group)
            else:
                del self._groups[group]
            return waiting
        return None

    def drain(self) -> list[Waiting]:
        """Takes everything out."""
        everything = [waiting for queue in self._groups.values() for waiting in queue]
        self._groups.clear()
        return everything
