"""Keys of the rounds of an augmentation set, and the record of an accepted twin.

rounds/{number:06d}/plan.jsonl       the samples planned, one a line
rounds/{number:06d}/jobs.json        the jobs that make them, and which samples each makes
rounds/{number:06d}/accepted.jsonl   the accepted ones: :class:`AcceptedLine`
rounds/{number:06d}/state.json       written last
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from service.store.base import ObjectStore
from service.store.run_keys import run_prefix


class AcceptedLine(BaseModel):
    """An accepted twin.

    ``source_mask`` names the real mask, or masks joined by '+', that it came from; ``made_from`` has the real item and
    the transforms of its mask.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    job: str
    index: int = Field(ge=0)
    source_mask: str | None = None
    made_from: dict[str, Any] = Field(default_factory=dict)


def round_prefix(run: str, number: int) -> str:
    return f"{run_prefix(run)}rounds/{number:06d}/"


def round_numbers(store: ObjectStore, run: str) -> list[int]:
    """The numbers of the rounds that have any object, in order: 0, 1, ... unless the store has lost some."""
    return [int(name) for name in store.list_folders(f"{run_prefix(run)}rounds/") if name.isascii() and name.isdigit()]


def accepted(run: str, number: int) -> str:
    return f"{round_prefix(run, number)}accepted.jsonl"
