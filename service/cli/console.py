"""Console output of the commands: one console for results, one for errors, and the format of a problem."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import markup
from rich.console import Console

# emoji: ":x:" in a name or a setting is text, not a picture.
out = Console(highlight=False, emoji=False)
err = Console(stderr=True, highlight=False, emoji=False)


def escape(text: str, *, lines: bool = False) -> str:
    """A text that rich prints literally, with control characters escaped: names in datasets may contain anything.

    ``lines`` keeps line breaks; those in a name could forge a line of a report.
    """
    from service.kit.validation import escape_control

    return markup.escape(escape_control(text, keep="\n" if lines else ""))


def show_problem(problem: Mapping[str, Any]) -> None:
    """Prints a problem document (RFC 9457): its title, its detail with the remedy, and each invalid field."""
    err.print(f"[bold red]Error:[/] [bold]{escape(str(problem.get('title', 'something went wrong')))}[/]")
    detail = problem.get("detail")
    faults = [(str(fault.get("pointer", "")), str(fault.get("detail", ""))) for fault in problem.get("errors") or ()]
    # a detail that only joins its faults would repeat them
    if detail and (len(faults) < 2 or detail != "; ".join(what for _, what in faults)):
        err.print(f"  {escape(str(detail))}", soft_wrap=True)
    for where, what in faults:
        if what and what != detail:
            err.print(f"  [dim]{escape(where)}[/] {escape(what)}", soft_wrap=True)


def duration(seconds: float) -> str:
    """``75.2`` -> ``1 min 15 s``; below ten seconds with a decimal."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
