"""Rounds of an augmentation set in the store: planned samples, the jobs that make them, and the results.

    rounds/{number:06d}/plan.jsonl                  one :class:`WantedLine` per sample, written first
    rounds/{number:06d}/jobs.json                   :class:`RoundJobs`, once every job is accepted
    rounds/{number:06d}/accepted.{attempt}.jsonl    the accepted twins
    rounds/{number:06d}/fingerprints.{attempt}.bin  the fingerprints of all rounds so far, to find near-duplicates
    rounds/{number:06d}/state.json                  :class:`RoundState`, written last: the round is done

Two workers, one of them presumed dead, may be at a round at the same time, and on different machines decide
differently. So plan, jobs and state are written once, the first one counts for both, and the state names the files that
count.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from service.errors import ObjectNotFound
from service.kit.frozen import _Frozen, parse_stored
from service.kit.run_kinds import RunKind, kind_of
from service.store.base import ObjectStore
from service.store.checked import read_checked
from service.store.immutable import StoredObject, put_attempt, put_once
from service.store.round_keys import (
    AcceptedLine,
    accepted,
    round_numbers,
    round_prefix,
)

_PLACE = re.compile(r"[0-9]+\.[0-9]+")
"""Round and place: what follows the set's id in its jobs' idempotency keys; see :meth:`Rounds.job_key`."""


class WantedLine(_Frozen):
    """A sample to make. ``upload``: its mask, if one is given; ``shares``: those of that mask, or the expected ones."""

    wanted: dict[str, Any]
    upload: str | None
    instances: str | None = Field(None, description="the upload of its instance map")
    applied: tuple[dict[str, Any], ...]
    missed: dict[str, str] = Field(default_factory=dict, description="why it misses the rule on a class, by its name")
    shares: tuple[float, ...]
    source_mask: str | None
    item: str = Field(description="the real item's name")
    scale: tuple[float, ...] | None = Field(None, description="pixels of the twin for one of the item, across and down")


class RoundJob(_Frozen):
    """A job of a round: its sample i is line ``lines[i]`` of the plan."""

    job: str
    lines: tuple[int, ...]


class RoundJobs(_Frozen):
    """The jobs of a round."""

    format: Literal[1] = 1
    jobs: tuple[RoundJob, ...]


class RoundState(_Frozen):
    """State of the set after a round: its counts so far, and the number of rejected samples by reason.

    Formats: 2, and 1 for states that do not name the round's files.
    """

    format: Literal[1, 2] = 2
    counts: dict[str, Any]
    rejected: dict[str, int]
    objects: dict[str, dict[str, int]] = Field(
        default_factory=dict, description="accepted twins by class with a rule on its objects: met, or why not"
    )
    accepted: StoredObject | None = Field(None, description="the accepted twins; None in format 1")
    fingerprints: StoredObject | None = Field(None, description="None in format 1, and if near-duplicates are allowed")


def set_of_key(idempotency_key: str | None) -> str | None:
    """The augmentation set whose jobs have such an idempotency key; None for any other key."""
    run, _, place = (idempotency_key or "").partition(".")
    return run if kind_of(run) is RunKind.AUGMENTATION and _PLACE.fullmatch(place) else None


@dataclass(frozen=True)
class Rounds:
    """The stored rounds of the run ``run``."""

    store: ObjectStore
    run: str

    def read_plan(self, number: int) -> list[WantedLine] | None:
        """The round's plan, or None if it has none yet."""
        data = self._get(number, "plan.jsonl")
        return None if data is None else [self._parsed(WantedLine, line, number) for line in data.splitlines()]

    def write_plan(self, number: int, lines: Sequence[WantedLine]) -> list[WantedLine]:
        """Writes the round's plan, unless it has one; the plan that counts."""
        self._put(number, "plan.jsonl", b"".join(line.model_dump_json().encode() + b"\n" for line in lines))
        return self.read_plan(number) or list(lines)

    def read_jobs(self, number: int) -> RoundJobs | None:
        data = self._get(number, "jobs.json")
        return None if data is None else self._parsed(RoundJobs, data, number)

    def write_jobs(self, number: int, jobs: RoundJobs) -> None:
        self._put(number, "jobs.json", jobs.model_dump_json().encode())

    def read_state(self, number: int) -> RoundState | None:
        data = self._get(number, "state.json")
        return None if data is None else self._parsed(RoundState, data, number)

    def last_state(self) -> tuple[int, RoundState | None]:
        """The number of finished rounds, and the state after them."""
        for number in reversed(self.numbers()):
            state = self.read_state(number)
            if state is not None:
                return number + 1, state
        return 0, None

    def numbers(self) -> list[int]:
        """The numbers of the rounds that have any object in the store, in order."""
        return round_numbers(self.store, self.run)

    def read_fingerprints(self, number: int) -> bytes | None:
        """The fingerprints after a round. Raises ObjectNotFound or ObjectDamaged if they are lost."""
        state = self.read_state(number)
        if state is None or state.format == 1:
            return self._get(number, "fingerprints.bin")
        stored = state.fingerprints
        return None if stored is None else read_checked(self.store, stored.key, stored.sha256)

    def finish(
        self, number: int, twins: Sequence[AcceptedLine], fingerprints: bytes | None, state: RoundState
    ) -> RoundState:
        """Writes the results of a round, its state last; the state that counts, another worker's if that came first."""
        lines = b"".join(line.model_dump_json().encode() + b"\n" for line in twins)
        files = {"accepted": put_attempt(self.store, accepted(self.run, number), lines)}
        if fingerprints is not None:
            key = f"{round_prefix(self.run, number)}fingerprints.bin"
            files["fingerprints"] = put_attempt(self.store, key, fingerprints)
        state = state.model_copy(update=files)
        self._put(number, "state.json", state.model_dump_json().encode())
        return self.read_state(number) or state

    def counted_keys(self) -> set[str]:
        """The keys of all files that the states of judged rounds name."""
        states = [self.read_state(number) for number in self.numbers()]
        files = [file for state in states if state is not None for file in (state.accepted, state.fingerprints)]
        return {file.key for file in files if file is not None}

    def job_key(self, number: int, place: int) -> str:
        """The idempotency key of the job at ``place`` (0, 1, ...) of a round."""
        return f"{self.run}.{number}.{place}"

    def half_sent(self) -> list[int]:
        """The rounds with a plan but without a list of jobs: some of their jobs may have been sent."""
        return [number for number in self.numbers() if self.read_jobs(number) is None]

    def jobs(self, newest: int | None = None) -> list[str]:
        """The jobs of all rounds, those of the newest round first; with ``newest``, only the first so many."""
        found: list[str] = []
        for number in reversed(self.numbers()):
            jobs = self.read_jobs(number)
            found += [job.job for job in jobs.jobs] if jobs is not None else []
            if newest is not None and len(found) >= newest:
                return found[:newest]
        return found

    def _get(self, number: int, name: str) -> bytes | None:
        try:
            return self.store.get(round_prefix(self.run, number) + name)
        except ObjectNotFound:
            return None

    def _put(self, number: int, name: str, data: bytes) -> None:
        put_once(self.store, round_prefix(self.run, number) + name, data)

    def _parsed(self, kind: type[Any], data: bytes, number: int) -> Any:
        return parse_stored(kind, data, round_prefix(self.run, number).rstrip("/"))
