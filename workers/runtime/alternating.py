"""Alternating order: of things in several lanes one of each in turn, so that no long lane comes first as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, zip_longest
from typing import TypeVar, cast

T = TypeVar("T")
_NOTHING = object()


def alternating(things: Iterable[T], lane: Callable[[T], str]) -> Iterator[T]:
    """The first of each lane, then the second of each, ...; the things of a lane stay in their order."""
    lanes: dict[str, list[T]] = {}
    for thing in things:
        lanes.setdefault(lane(thing), []).append(thing)
    rounds = zip_longest(*lanes.values(), fillvalue=_NOTHING)
    return (cast(T, thing) for thing in chain.from_iterable(rounds) if thing is not _NOTHING)
