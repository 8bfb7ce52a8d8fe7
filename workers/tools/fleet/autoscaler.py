"""KEDA and the HorizontalPodAutoscaler: how many replicas follow from a metric, and when.

KEDA looks every ``polling_s``: it starts the first replica, and takes the last one away ``cooldown_s`` after there was
work. In between the autoscaler looks every 15 s. It asks for ceil(value / target) replicas, unless that is within 10 %
of what there is; it lowers the number only to the largest that was asked for within ``down_after_s``, and by no more
than ``down_percent`` in five minutes; it raises it to the double, or by 4, every 15 s.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

SYNC_S = 15.0
TOLERANCE = 0.1
_DOWN_PERIOD_S = 300.0


@dataclass(frozen=True)
class ScalingClocks:
    """The settings of the chart: ``keda``, and ``autoscaling`` of a pool."""

    min_replicas: int = 0
    max_replicas: int = 10
    polling_s: float = 15.0
    cooldown_s: float = 300.0
    down_after_s: float = 600.0
    down_percent: int = 50


@dataclass
class Autoscaler:
    """Follows one metric, whose target for each replica is 1. ``replicas`` is what the Deployment shall have."""

    clocks: ScalingClocks
    replicas: int = 0
    _active_at: float = float("-inf")
    _asked: deque[tuple[float, int]] = field(default_factory=deque)
    _removed: deque[tuple[float, int]] = field(default_factory=deque)

    def poll(self, now: float, value: float) -> int:
        """KEDA's look; the number of replicas from now on."""
        if value > 0:
            self._active_at = now
            if self.replicas == 0:
                self.replicas = max(1, self.clocks.min_replicas)
        elif self.clocks.min_replicas == 0 and now - self._active_at >= self.clocks.cooldown_s:
            self.replicas = 0
            self._asked.clear()
        return self.replicas

    def sync(self, now: float, value: float) -> int:
        """The autoscaler's look; the number of replicas from now on. It does nothing while there are none."""
        if self.replicas == 0:
            return 0
        asked = self.replicas
        if abs(value / self.replicas - 1.0) > TOLERANCE:
            asked = math.ceil(value)
        asked = min(max(asked, self.clocks.min_replicas, 1), self.clocks.max_replicas)
        self._asked.append((now, asked))
        while self._asked[0][0] < now - self.clocks.down_after_s:
            self._asked.popleft()
        stable = max(number for _, number in self._asked) if asked < self.replicas else asked
        if stable > self.replicas:
            self.replicas = min(stable, max(2 * self.replicas, self.replicas + 4))
        elif stable < self.replicas:
            while self._removed and self._removed[0][0] <= now - _DOWN_PERIOD_S:
                self._removed.popleft()
            before = self.replicas + sum(number for _, number in self._removed)
            lowest = math.ceil(before * (1 - self.clocks.down_percent / 100))
            lower = max(stable, min(lowest, self.replicas))
            self._removed.append((now, self.replicas - lower))
            self.replicas = lower
        return self.replicas
