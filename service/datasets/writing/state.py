"""What a part of an export has gathered so far, in a form that can be put away and taken up again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from service.kit.output_file import Spool


@dataclass(frozen=True)
class WriterState:
    """``values`` are small and JSON-able; what grows is in ``spools``, to which bytes are only ever added.

    A spool is known by its name: another one, even if it takes the place of one that was finished, has another name.
    """

    values: dict[str, Any] = field(default_factory=dict)
    spools: dict[str, Spool] = field(default_factory=dict)
