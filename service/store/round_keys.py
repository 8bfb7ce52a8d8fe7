"""Keys of the rounds of an augmentation set, and the record of an accepted twin.

rounds/{number:06d}/plan.jsonl                  the samples planned, one a line; written once
rounds/{number:06d}/jobs.json                   the jobs that make them, and which samples each makes; written once
rounds/{number:06d}/accepted.{attempt}.jsonl    the accepted ones: :class:`AcceptedLine`
rounds/{number:06d}/fingerprints.{attempt}.bin  the fingerprints of all rounds up to this one
rounds/{number:06d}/state.json                  written last and once: it names the two before

Two workers, one of them presumed dead, may judge a round at the same time and differ; the first state counts. States of
format 1 name nothing: their accepted twins and fingerprints have keys without an attempt.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import Field

from service.errors import ObjectNotFound, StoreError
from service.kit.frozen import _Frozen
from service.store.base import ObjectStore
from service.store.run_keys import run_prefix


class AcceptedLine(_Frozen):
    """An accepted twin.

    ``source_mask`` names the real mask, or masks joined by '+', that it came from; ``made_from`` has the real item and
    the transforms of its mask.
    """

    job: str
    index: int = Field(ge=0)
    source_mask: str | None = None
    made_from: dict[str, Any] = Field(default_factory=dict)


def round_prefix(run: str, number: int) -> str:
    return f"{run_prefix(run)}rounds/{number:06d}/"


def round_numbers(store: ObjectStore, run: str) -> list[int]:
    """The numbers of the rounds that have any object, in order: 0, 1, ... unless the store has lost some."""
    return [int(name) for name in store.list_folders(f"{run_prefix(run)}rounds/") if name.isascii() and name.isdigit()]


def round_state(run: str, number: int) -> str:
    return f"{round_prefix(run, number)}state.json"


def accepted_key(store: ObjectStore, run: str, number: int) -> str | None:
    """The key of a judged round's accepted twins; None for a round that is not judged. Raises the store's errors."""
    try:
        state = json.loads(store.get(round_state(run, number)))
    except ObjectNotFound:
        return None
    except ValueError:
        raise StoreError(f"{round_state(run, number)} in the object store is not the state of a round") from None
    named = state.get("accepted")
    return accepted(run, number) if named is None else str(named["key"])


def accepted(run: str, number: int) -> str:
    """The key of a round's accepted twins, without its attempt."""
    return f"{round_prefix(run, number)}accepted.jsonl"
