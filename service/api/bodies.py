"""Request bodies in memory: how many bytes of them at the same time, and how much JSON may be in one.

Both are known before they cost anything: memory is reserved by a body's announced length before its first byte is read,
and JSON is refused by the number of its values before it is parsed. Parsing blocks the event loop, and a megabyte of
``[],[],`` becomes fifty times as much in memory; large strings, as of masks in base64, cost nothing of the kind.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Request

from service.api.errors import TooBusy
from service.errors import InvalidRequest, LimitReached
from service.kit.documents import DocumentRefused, NameRepeated, parse_json

FREE_BYTES = 64 << 10
"""Bodies up to this size are not counted: connections are limited, and so is the sum of such bodies."""
MAX_JSON_VALUES = 50_000
"""Commas and opening brackets of a JSON body, also within its strings."""
MAX_JSON_DEPTH = 500
_WAIT_S = 10.0


class BodyMemory:
    """The memory for bodies, ``total`` bytes, of which a tenant may have half, and in any case ``largest``.

    It belongs to one event loop. A body that does not fit waits, and is not read meanwhile: its sender waits too.
    """

    def __init__(self, total: int, largest: int, *, wait_s: float = _WAIT_S) -> None:
        self._total = max(total, largest)
        self._per_tenant = max(total // 2, largest)
        self._largest = largest
        self._wait_s = wait_s
        self._held: Counter[str] = Counter()
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def reserve(self, tenant: str, announced: int | None) -> AsyncIterator[None]:
        """Memory for a body of ``announced`` bytes, of the largest if it is not announced, while the block lasts.

        Raises :class:`LimitReached`, or :class:`TooBusy`, if there is none for some seconds.
        """
        size = self._largest if announced is None else min(announced, self._largest)
        if size <= FREE_BYTES:
            yield
            return
        try:
            async with asyncio.timeout(self._wait_s):
                while not self._fits(tenant, size):
                    self._freed.clear()
                    await self._freed.wait()
        except TimeoutError:
            raise self._full(tenant, size) from None
        self._held[tenant] += size
        try:
            yield
        finally:
            self._held[tenant] -= size
            if not self._held[tenant]:
                del self._held[tenant]
            self._freed.set()

    def _fits(self, tenant: str, size: int) -> bool:
        return self._held[tenant] + size <= self._per_tenant and self._held.total() + size <= self._total

    def _full(self, tenant: str, size: int) -> LimitReached | TooBusy:
        held = self._held[tenant]
        if held + size > self._per_tenant:
            return LimitReached(
                f"requests of tenant {tenant!r} in progress have bodies of {held} bytes, and {size} more are over the "
                f"{self._per_tenant} that fit into memory for one tenant; send fewer at the same time",
                retry_after_s=1,
                limit="TWINSET_MAX_BODY_MEMORY_BYTES",
                max=self._per_tenant,
                used=held,
            )
        return TooBusy(
            f"the bodies of requests in progress take the {self._total} bytes that there are for them; try again in a "
            "second"
        )


def announced_bytes(request: Request) -> int | None:
    """The body's length by its header; None if it comes in chunks."""
    given = request.headers.get("content-length")
    if given is not None:
        return int(given) if given.isascii() and given.isdigit() and len(given) < 19 else None
    return None if "transfer-encoding" in request.headers else 0


async def read_json(request: Request) -> bytes:
    """The body, if it is not too much JSON. Raises :class:`InvalidRequest` as soon as it is.

    A name that comes twice is refused too: parsers differ in which one counts, as with repeated headers.
    """
    pieces, values = [], 0
    async for piece in request.stream():
        pieces.append(piece)
        values += piece.count(b",") + piece.count(b"[") + piece.count(b"{")
        if values > MAX_JSON_VALUES:
            raise _too_much(f"has more than {MAX_JSON_VALUES} values (commas and opening brackets)", "too many values")
    body = b"".join(pieces)
    if values > MAX_JSON_DEPTH and _depth(body) > MAX_JSON_DEPTH:
        raise _too_much(f"is nested more than {MAX_JSON_DEPTH} deep", "nested too deeply")
    try:
        parse_json(body)
    except NameRepeated as error:
        raise InvalidRequest(
            f"the body is ambiguous: {error}", errors=[{"pointer": "", "detail": str(error)}]
        ) from None
    except DocumentRefused:
        pass  # the route says what is wrong with it
    return body


def _too_much(what: str, detail: str) -> InvalidRequest:
    return InvalidRequest(
        f"the body {what}; send one JSON object with less in it, and masks by the ids that POST /uploads gives",
        errors=[{"pointer": "", "detail": detail}],
    )


# A string, whether it ends or not, so that each byte is looked at once; or a bracket.
_STRING_OR_BRACKET = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{}]', re.DOTALL)


def _depth(body: bytes) -> int:
    """How deep the JSON is nested, whether it is valid or not."""
    depth = deepest = 0
    for found in _STRING_OR_BRACKET.finditer(body):
        at = body[found.start()]
        if at != 0x22:
            depth += 1 if at in b"[{" else -1
            deepest = max(deepest, depth)
    return deepest
