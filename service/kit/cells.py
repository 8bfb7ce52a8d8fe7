"""Text from outside as the first cell of a line, which a spreadsheet must not run."""

from __future__ import annotations

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a formula begins with, also in full width, which spreadsheets in East Asia take for the same."""


def cell(text: str) -> str:
    """The text, behind an apostrophe if a spreadsheet would take it for a formula."""
    # one that has an apostrophe there gets another, so that read_cell can tell them apart
    return f"'{text}" if text.lstrip("'").startswith(_FORMULA) else text


def read_cell(text: str) -> str:
    """The text that :func:`cell` was given."""
    return text[1:] if text.startswith("'") and text.lstrip("'").startswith(_FORMULA) else text
