"""Text from outside within Markdown: it stays text, on its line, and is no link, image, HTML or heading."""

from __future__ import annotations

import re

from service.kit.validation import escape_control

_SPECIAL = re.compile(r"[\\`*\[\]|!#~$]|(?<=\])\(|(?<![^\W_])_|_(?![^\W_])|^[-+=]|^[0-9]+(?=[.)])")
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def plain(text: str) -> str:
    """The text on one line, every mark of Markdown and HTML in it escaped; control and bidi marks are shown as such."""
    line = escape_control(" ".join(text.split()))
    return _SPECIAL.sub(_escaped, line).translate(_ENTITIES)


def code(text: str) -> str:
    """The text as code, in which nothing else has a meaning."""
    return f"`{escape_control(' '.join(text.split())).replace('`', chr(39)) or ' '}`"


def _escaped(found: re.Match[str]) -> str:
    # a number at the start of a line is a list's item only with what follows it
    return f"{found[0]}\\" if found[0].isdigit() else f"\\{found[0]}"
