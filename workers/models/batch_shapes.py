"""Batch shapes chosen by measurement, stored once for each model and machine type.

    shapes/{model}/{version}/{sha256 of the machine type}.json
    shapes/{owner}/{model}/{version}/{sha256 of the machine type}.json   of a tenant's own model

All workers of a machine type run a model in the shape that the first of them chose, so that a twin made again next
month, or by another worker, has the same bits.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime

from pydantic import ValidationError

from model_store.interface import System
from service.errors import ObjectExists, ObjectNotFound
from service.registry.batch_shape import ShapeChoice
from service.store import keys
from service.store.base import ObjectStore
from workers.engine.shape import choose_rows, measure_rows

logger = logging.getLogger(__name__)


def shape_for(
    store: ObjectStore,
    model: str,
    system: System,
    machine: dict[str, str],
    measure: Callable[[System], dict[int, float]] = measure_rows,
) -> ShapeChoice:
    """The shape of a model, by its key, on a machine type, measured and stored if the store has none.

    Raises a store's error; ValueError if no batch could be run at all.
    """
    key = keys.shape_choice(model, _digest(machine))
    stored = _read(store, key)
    if stored is not None:
        return stored
    seconds = measure(system)
    choice = ShapeChoice(
        model=model, machine=machine, rows=choose_rows(seconds), seconds_per_row=seconds, chosen_at=datetime.now(UTC)
    )
    try:
        store.put(key, choice.model_dump_json(indent=1).encode(), if_absent=True)
    except ObjectExists:
        # another worker of the machine type stored its choice first, and may have made twins already
        return _read(store, key) or choice
    logger.info("%s: batches of %d rows on %s, ms a row: %s", model, choice.rows, machine["device"], _as_text(seconds))
    return choice


def _read(store: ObjectStore, key: str) -> ShapeChoice | None:
    try:
        text = store.get(key)
    except ObjectNotFound:
        return None
    try:
        return ShapeChoice.model_validate_json(text)
    except ValidationError as error:
        # no twin was made in a shape whose file is torn, so it can be chosen again
        logger.warning("%s is damaged and is measured again: %s", key, error)
        store.delete(key)
        return None


def _digest(machine: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(machine, sort_keys=True).encode()).hexdigest()


def _as_text(seconds: dict[int, float]) -> str:
    return ", ".join(f"{rows}: {value * 1e3:.3g}" for rows, value in seconds.items())
