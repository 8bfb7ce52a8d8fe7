"""Pages of a list, and methods that iterate over all of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import update_wrapper
from typing import Any, Generic, TypeVar

Entry = TypeVar("Entry")


@dataclass(frozen=True)
class Page(Generic[Entry]):
    """Entries of a list, and the cursor of the next page; None for the last page."""

    entries: Sequence[Entry]
    next_cursor: str | None


def as_paged(method: Callable[..., Any], page: Callable[..., Any]) -> Callable[..., Any]:
    """``method`` with the name, docstring and parameters of the flow ``page``, except its cursor."""
    update_wrapper(method, page)
    signature = inspect.signature(page)
    parameters = [parameter for name, parameter in signature.parameters.items() if name != "cursor"]
    method.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return method
