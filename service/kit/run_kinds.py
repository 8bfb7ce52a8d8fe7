"""The kinds of runs, and their ids: a letter for the kind, then time and random digits; they list newest first."""

from __future__ import annotations

import re
from datetime import datetime
from enum import StrEnum

from service.kit.ids import ID_BODY, new_id


class RunKind(StrEnum):
    """The kind of a run."""

    DATASET = "dataset"
    AUGMENTATION = "augmentation"
    EXPORT = "export"
    TRAINING = "training"

    @property
    def letter(self) -> str:
        """The first letter of its ids."""
        return self.value[0]

    @property
    def plural(self) -> str:
        """The first part of its paths, in the API and in the store."""
        return f"{self.value}s"

    @property
    def words(self) -> str:
        """The kind with its article, for messages."""
        return f"{'an' if self.value[0] in 'aeiou' else 'a'} {self.value}"


RUN_ID_PATTERN = rf"^[{''.join(kind.letter for kind in RunKind)}]{ID_BODY}$"
_RUN_ID = re.compile(RUN_ID_PATTERN.rstrip("$") + r"\Z")


def new_run_id(kind: RunKind, now: datetime | None = None) -> str:
    """A new id for a run accepted at ``now`` (timezone-aware; the present moment if None)."""
    return new_id(kind.letter, now)


def kind_of(run: str) -> RunKind | None:
    """The kind of the run that an id names; None for a text that is not a run's id.

    Nothing but a run's id may become part of a store key.
    """
    if _RUN_ID.match(run) is None:
        return None
    return next(kind for kind in RunKind if kind.letter == run[0])
