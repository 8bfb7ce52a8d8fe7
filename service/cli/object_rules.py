"""Options of ``twinset augment`` for rules on objects: ``--objects A=5..20`` and ``--object-size A=10..24``."""

from __future__ import annotations

from typing import Any

import click


def rules(ctx: click.Context, parameter: click.Parameter, text: str | None) -> dict[str, Any]:
    """``A=5,B=2..8`` as numbers, or pairs of the least and the most, by class. Raises BadParameter."""
    found: dict[str, Any] = {}
    for part in text.split(",") if text is not None else ():
        name, _, value = (piece.strip() for piece in part.rpartition("="))
        if name in found:
            raise click.BadParameter(f"{text!r} names {name!r} twice; give it one rule", ctx, parameter)
        try:
            numbers = [_number(piece) for piece in value.split("..")]
        except ValueError:
            numbers = []
        if not name or len(numbers) not in (1, 2):
            raise click.BadParameter(f"{text!r} is not of the form A=5,B=2..8", ctx, parameter)
        found[name] = numbers[0] if len(numbers) == 1 else numbers
    return found


def with_rules(request: dict[str, Any], counts: dict[str, Any], sizes: dict[str, Any]) -> dict[str, Any]:
    """The request with these rules added to those that it has."""
    objects = {name: dict(rule) for name, rule in (request.get("objects") or {}).items()}
    for member, given in (("count", counts), ("size", sizes)):
        for name, value in given.items():
            objects.setdefault(name, {})[member] = value
    return {**request, "objects": objects} if objects else request


def _number(text: str) -> int | float:
    value = float(text)
    return int(value) if value.is_integer() else value
