"""Device time of a twin, from what workers have measured: the seconds of a row in a forward of the model's batch.

The first worker of each machine type measures a model when it loads it, and keeps that in the store, so it survives
every process and Redis. Of several machine types the one measured last counts. Decoding and storing overlap with the
network and are not in it.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from pydantic import ValidationError

from service.errors import ObjectNotFound
from service.jobs.spec import JobSpec
from service.registry.batch_shape import ShapeChoice
from service.store import keys
from service.store.base import ObjectStore

UNMEASURED_TWIN_S = 1.0
"""A twin of a model that no worker has loaded counts as one second, so that the first worker is asked for."""
_REFRESH_S = 60.0


@dataclass
class DeviceTimes:
    """What workers have measured, read again every minute. May be used from many threads."""

    store: ObjectStore
    _read: dict[str, tuple[float, float | None]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def row_seconds(self, model: str) -> float | None:
        """Seconds of one row-step of a model, by its key, in a full batch; None if unmeasured. A store's error."""
        with self._lock:
            read_at, found = self._read.get(model, (float("-inf"), None))
        if time.monotonic() - read_at > _REFRESH_S:
            found = self._measured(model)
            with self._lock:
                self._read[model] = time.monotonic(), found
        return found

    def twin_seconds(self, spec: JobSpec) -> float:
        """Device-seconds of one twin of the job."""
        row_s = self.row_seconds(spec.model_key)
        if row_s is None:
            return UNMEASURED_TWIN_S
        # at scale 1 and 0 guidance compares nothing, so a twin takes one row
        rows = 1 if spec.guidance_scale in (0.0, 1.0) else 2
        return spec.steps * rows * row_s

    def _measured(self, model: str) -> float | None:
        choices: list[ShapeChoice] = []
        for info in self.store.list(keys.shape_choices_prefix(model)):
            try:
                choices.append(ShapeChoice.model_validate_json(self.store.get(info.key)))
            except (ObjectNotFound, ValidationError):
                continue  # a worker measures again what is damaged
        timed = [choice for choice in choices if choice.row_seconds is not None]
        return max(timed, key=lambda choice: choice.chosen_at).row_seconds if timed else None
