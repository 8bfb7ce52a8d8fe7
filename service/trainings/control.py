"""Pause and resume of a training: numbered requests in the store, of which the last one counts."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Literal

from service.errors import ObjectExists
from service.kit.frozen import parse_members
from service.store import training_keys
from service.store.base import ObjectStore

Action = Literal["pause", "resume"]


def request(store: ObjectStore, run: str, action: Action, *, by: str | None = None) -> bool:
    """Asks for a pause or a resume; False if that is what was asked for last. ``by`` is the caller's API key id."""
    while True:
        number, last = _last(store, run)
        if last == action or (last is None and action == "resume"):
            return False
        body = {"action": action, "at": datetime.now(UTC).isoformat(), "by": by}
        try:
            store.put(training_keys.training_control(run, number + 1), json.dumps(body).encode(), if_absent=True)
        except ObjectExists:
            continue  # another caller was faster: look at what it asked for
        return True


def is_paused(store: ObjectStore, run: str) -> bool:
    """Whether the training shall not go on for now."""
    return _last(store, run)[1] == "pause"


def _last(store: ObjectStore, run: str) -> tuple[int, str | None]:
    prefix = training_keys.training_controls_prefix(run)
    keys = [info.key for info in store.list(prefix)]
    if not keys:
        return 0, None
    action = parse_members(store.get(keys[-1]), keys[-1], "action")["action"]
    return int(keys[-1][len(prefix) :].removesuffix(".json")), str(action)
