"""Keeping leases alive while their holders are busy: loading a model, waiting for a slow store, encoding prompts.

A holder says now and then that it is still there; a thread of its own renews in between, for one wait on a store with
all its retries takes longer than a lease lives. A holder that says nothing for :data:`HANG_TIMEOUT_S` is taken to hang,
and its lease is left to run out, so that another worker may try. A process that is stopped as a whole renews nothing
either.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from workers.runtime.leases import Lease, Leases

logger = logging.getLogger(__name__)
HANG_TIMEOUT_S = 600.0


@dataclass(eq=False)
class RenewedLease:
    """A lease in the keeper's hands; ``lost`` once another worker is known to have taken the chunk."""

    lease: Lease
    lost: bool = False
    heard_at: float = field(default_factory=time.monotonic)

    def heartbeat(self) -> bool:
        """Says that the holder is at work; False if it need not be any more, since the lease is lost."""
        self.heard_at = time.monotonic()
        return not self.lost


class LeaseRenewer:
    """Renews the leases of one process three times in the life of each. May be used from many threads."""

    def __init__(self, leases: Leases, lease_s: float, *, silence_s: float = HANG_TIMEOUT_S) -> None:
        self._leases = leases
        self._interval_s = lease_s / 3
        self._silence_s = silence_s
        self._kept: set[RenewedLease] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def keep(self, lease: Lease) -> Iterator[RenewedLease]:
        """Renews the lease until the block ends, then gives it back."""
        kept = RenewedLease(lease)
        with self._lock:
            self._kept.add(kept)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="lease-keeper", daemon=True)
                self._thread.start()
        try:
            yield kept
        finally:
            self.release(kept)

    def release(self, kept: RenewedLease) -> None:
        """Gives the lease back before the block ends; a second time changes nothing."""
        with self._lock:
            self._kept.discard(kept)
        self._leases.release(kept.lease)

    def close(self) -> None:
        """Ends the thread; what is kept runs out, unless it is released."""
        self._closed.set()

    def renew(self) -> None:
        """Renews once what is kept."""
        with self._lock:
            everything = list(self._kept)
        for kept in everything:
            if kept.lost:
                continue
            lease = kept.lease
            if time.monotonic() - kept.heard_at > self._silence_s:
                logger.error("job=%s chunk=%d seems to hang; its lease is left to run out", lease.job, lease.chunk)
                continue
            if not self._leases.hold(lease):
                kept.lost = True
            with self._lock:
                ended = kept not in self._kept
            if ended and not kept.lost:
                # given back while it was being renewed: nobody may have to wait for it to run out
                self._leases.release(lease)

    def _run(self) -> None:
        while not self._closed.wait(self._interval_s):
            try:
                self.renew()
            except Exception:
                logger.exception("leases were not renewed")
