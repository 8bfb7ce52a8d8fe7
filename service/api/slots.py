"""What a tenant may hold open in an API process at the same time: event streams and waiting requests, and transfers."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from service.errors import LimitReached

_RETRY_AFTER_S = 5


@dataclass
class Slots:
    """Up to ``most`` (0: no limit) of ``what`` for each tenant. It belongs to one event loop.

    ``setting`` names the limit in messages.
    """

    most: int
    what: str
    setting: str
    _held: Counter[str] = field(default_factory=Counter)

    def full(self, tenant: str) -> bool:
        """Whether the tenant holds all that it may."""
        return 0 < self.most <= self._held[tenant]

    @contextmanager
    def hold(self, tenant: str) -> Iterator[None]:
        """Holds one while the block lasts. Raises :class:`LimitReached`."""
        if self.full(tenant):
            raise LimitReached(
                f"tenant {tenant!r} has {self._held[tenant]} {self.what} open, and may have {self.most}; close one, or "
                "wait until one has ended",
                retry_after_s=_RETRY_AFTER_S,
                limit=self.setting,
                max=self.most,
                used=self._held[tenant],
            )
        self._held[tenant] += 1
        try:
            yield
        finally:
            self._held[tenant] -= 1
            if not self._held[tenant]:
                del self._held[tenant]


class HeldStream(StreamingResponse):
    """A streamed answer that holds a slot of its tenant until it has been sent, or its client has gone."""

    def __init__(
        self,
        content: AsyncIterable[str | bytes] | Iterable[str | bytes],
        *,
        slots: Slots,
        tenant: str,
        media_type: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(content, media_type=media_type, headers=dict(headers or {}))
        self._slots = slots
        self._tenant = tenant

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._slots.hold(self._tenant):
            await super().__call__(scope, receive, send)
