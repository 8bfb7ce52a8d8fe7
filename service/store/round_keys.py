"""Where the rounds of an augmentation set lie, and what is said of a twin that counts.

rounds/{number:06d}/plan.jsonl       what was wanted, a sample a line
rounds/{number:06d}/jobs.json        the jobs that make it, and which samples each
rounds/{number:06d}/accepted.jsonl   those that count: :class:`AcceptedLine`
rounds/{number:06d}/state.json       written last of the round
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from service.store.base import ObjectStore
from service.store.run_keys import run_prefix


class AcceptedLine(BaseModel):
    """A twin that counts. ``source_mask`` names the real mask, or masks joined by '+', that it came from; ``made_from``
    says which real item that was and what was done to its mask."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    job: str
    index: int = Field(ge=0)
    source_mask: str | None = None
    made_from: dict[str, Any] = Field(default_factory=dict)


def round_prefix(run: str, number: int) -> str:
    return f"{run_prefix(run)}rounds/{number:06d}/"


def round_numbers(store: ObjectStore, run: str) -> list[int]:
    """The rounds of which anything is there, in order; one after the other from 0 on, of a store that has lost
    nothing."""
    return [int(name) for name in store.list_folders(f"{run_prefix(run)}rounds/") if name.isascii() and name.isdigit()]


def accepted(run: str, number: int) -> str:
    return f"{round_prefix(run, number)}accepted.jsonl"
