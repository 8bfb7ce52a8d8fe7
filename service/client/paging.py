"""Lists that come in pages."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import update_wrapper
from typing import Any, Generic, TypeVar

Entry = TypeVar("Entry")


@dataclass(frozen=True)
class Page(Generic[Entry]):
    """Entries, and the cursor of the page behind them; None where there is none."""

    entries: Sequence[Entry]
    next_cursor: str | None


def as_paged(method: Callable[..., Any], page: Callable[..., Any]) -> Callable[..., Any]:
    """``method`` with the name, the documentation and the parameters of the flow ``page``, but for its cursor."""
    update_wrapper(method, page)
    signature = inspect.signature(page)
    kept = [parameter for name, parameter in signature.parameters.items() if name != "cursor"]
    method.__signature__ = signature.replace(parameters=kept)  # type: ignore[attr-defined]
    return method
