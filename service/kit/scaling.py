"""The scaling rule: how many workers the work that is there needs. Chart, API and fleet simulator share it.

    replicas = max(ceil(backlog / target), busy workers)

The backlog is in device-seconds: what one device would need for all that is queued or in hand. ``target_s`` is the time
in which it shall be done. A worker that holds a lease is never scaled away, since who removes a replica does not ask
whether it is the idle one.
"""

from __future__ import annotations

import math


def replicas_wanted(backlog_s: float, target_s: float, busy: int = 0) -> int:
    """The number of workers for a backlog of ``backlog_s`` device-seconds, of which ``busy`` hold leases now.

    Raises ValueError for a target that is not above 0.
    """
    if not target_s > 0:
        raise ValueError(f"target_s is {target_s}; it must be more than 0 seconds")
    return max(math.ceil(backlog_s / target_s), busy)
