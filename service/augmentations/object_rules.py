"""Rules on the objects of a twin's mask, as a request gives them: how many of a class, and how large. Without numpy."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, WithJsonSchema
from pydantic_core import PydanticCustomError

OBJECTS_MAX = 1000
"""Largest number of objects of a class that a mask may be asked to have."""
FACTOR_MIN, FACTOR_MAX = 0.25, 4.0

Missed = Literal["no_room", "no_object", "nothing_else"]
"""Why a mask does not meet a rule: no free place, no such object to clone, or nothing else to fill its place with."""

_COUNT: dict[str, JsonValue] = {"type": "integer", "minimum": 0, "maximum": OBJECTS_MAX}
_COUNT_SCHEMA: dict[str, JsonValue] = {
    "anyOf": [_COUNT, {"type": "array", "items": _COUNT, "minItems": 2, "maxItems": 2}]
}
_SIDE: dict[str, JsonValue] = {"type": "number", "minimum": 1}
_SIZE_SCHEMA: dict[str, JsonValue] = {
    "anyOf": [
        {"type": "number", "minimum": FACTOR_MIN, "maximum": FACTOR_MAX},
        {"type": "array", "items": _SIDE, "minItems": 2, "maxItems": 2},
    ]
}


def _number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _pair(value: object, least: float, most: float) -> tuple[float, float] | None:
    """Two numbers in order within these limits; None for anything else."""
    if not isinstance(value, list | tuple) or len(value) != 2 or not all(_number(each) for each in value):
        return None
    low, high = float(value[0]), float(value[1])
    return (low, high) if least <= low <= high <= most else None


def _count(value: object) -> object:
    if value is None:
        return None
    found = _pair([value, value] if _number(value) else value, 0, OBJECTS_MAX)
    if found is None or not (found[0].is_integer() and found[1].is_integer()):
        raise PydanticCustomError(
            "count", f"give a number of objects, 0 (none) to {OBJECTS_MAX}, or the least and the most, as in [2, 8]"
        )
    return int(found[0]), int(found[1])


def _size(value: object) -> object:
    if value is None:
        return None
    if isinstance(value, Real) and _number(value) and FACTOR_MIN <= float(value) <= FACTOR_MAX:
        return float(value)
    if (found := _pair(value, 1, 1e6)) is not None:
        return found
    raise PydanticCustomError(
        "size",
        f"give a factor of length, {FACTOR_MIN:g} to {FACTOR_MAX:g}, or the least and the greatest side in pixels of "
        "the twin, 1 and up, as in [10, 24]",
    )


class ObjectRule(BaseModel):
    """A rule on the objects of one class in each mask. What meets it stays as it is."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    count: Annotated[tuple[int, int] | None, BeforeValidator(_count), WithJsonSchema(_COUNT_SCHEMA)] = Field(
        None,
        description=f"How many objects a mask has: a number, 0 for none, or the least and the most, up to "
        f"{OBJECTS_MAX}. A mask with more or fewer gets a number drawn evenly from these: objects are taken out, "
        "cloned, or taken from other masks.",
    )
    size: Annotated[float | tuple[float, float] | None, BeforeValidator(_size), WithJsonSchema(_SIZE_SCHEMA)] = Field(
        None,
        description=f"A factor of length for every object, {FACTOR_MIN:g} to {FACTOR_MAX:g}; or the least and the "
        "greatest side in pixels of the twin, the side of an object being that of a square of its area. An object "
        "outside that range is scaled to a side drawn from it.",
    )


def _few(value: object) -> object:
    if isinstance(value, Mapping) and len(value) > 256:
        raise PydanticCustomError("too_many", f"it has {len(value)} entries; give at most 256")
    return value


ObjectRules = Annotated[dict[str, ObjectRule], BeforeValidator(_few)]


def described(rule: ObjectRule) -> str:
    """A rule in words: "2 to 8 objects of 10 to 24 px"."""
    words: list[str] = []
    if rule.count is not None:
        least, most = rule.count
        words.append(f"{least}" if least == most else f"{least} to {most}")
    words.append("objects")
    if isinstance(rule.size, tuple):
        words.append(f"of {rule.size[0]:g} to {rule.size[1]:g} px")
    elif rule.size is not None:
        words.append(f"{rule.size:g} times as large")
    return " ".join(words)


def as_json(rules: Mapping[str, ObjectRule]) -> dict[str, Any]:
    """Rules as JSON-able values."""
    return {name: rule.model_dump(mode="json", exclude_none=True) for name, rule in rules.items()}
