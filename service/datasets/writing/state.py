"""The state of one component of an export, in a form that a checkpoint can store and restore."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from service.kit.output_file import Spool


@dataclass(frozen=True)
class WriterState:
    """A component's state: ``values`` are small and JSON-able; what grows is in the append-only ``spools``.

    A spool is identified by its name: the successor of a finished spool has another name.
    """

    values: dict[str, Any] = field(default_factory=dict)
    spools: dict[str, Spool] = field(default_factory=dict)
