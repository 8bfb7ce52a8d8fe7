"""Lease renewal: keeps leases alive while their holders load a model, wait for a slow store, or encode prompts.

A thread of its own renews the leases, because one wait on a store with all its retries takes longer than a lease lives.
The holder sends a heartbeat now and then. After :data:`HANG_TIMEOUT_S` without one the holder is taken to hang, and its
lease is left to expire, so that another worker may try. A process that is stopped as a whole renews nothing either.
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
    """A lease that is being renewed. ``lost`` once another worker is known to have taken it."""

    lease: Lease
    lost: bool = False
    heartbeat_at: float = field(default_factory=time.monotonic)

    def heartbeat(self) -> bool:
        """Records that the holder is at work; False once the lease is lost, so that the holder can stop."""
        self.heartbeat_at = time.monotonic()
        return not self.lost


class LeaseRenewer:
    """Renews the leases of one process, each three times in its life. May be used from many threads."""

    def __init__(self, leases: Leases, lease_s: float, *, hang_timeout_s: float = HANG_TIMEOUT_S) -> None:
        self._leases = leases
        self._interval_s = lease_s / 3
        self._hang_timeout_s = hang_timeout_s
        self._renewed: set[RenewedLease] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def renewing(self, lease: Lease) -> Iterator[RenewedLease]:
        """Renews the lease until the block ends, then releases it."""
        renewed = RenewedLease(lease)
        with self._lock:
            self._renewed.add(renewed)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="lease-renewer", daemon=True)
                self._thread.start()
        try:
            yield renewed
        finally:
            self.release(renewed)

    def release(self, renewed: RenewedLease) -> None:
        """Releases the lease before the block ends; a second call changes nothing."""
        with self._lock:
            self._renewed.discard(renewed)
        self._leases.release(renewed.lease)

    @property
    def hangs(self) -> bool:
        """Whether a holder is taken to hang."""
        with self._lock:
            return any(self._is_hung(renewed) for renewed in self._renewed)

    def close(self) -> None:
        """Ends the thread. Leases that are not released expire."""
        self._closed.set()

    def renew_all(self) -> None:
        """Renews every lease once."""
        with self._lock:
            everything = list(self._renewed)
        for renewed in everything:
            if renewed.lost:
                continue
            lease = renewed.lease
            if self._is_hung(renewed):
                logger.error("job=%s chunk=%d seems to hang; its lease is left to expire", lease.job, lease.chunk)
                continue
            if not self._leases.renew(lease):
                renewed.lost = True
            with self._lock:
                released = renewed not in self._renewed
            if released and not renewed.lost:
                # released while it was being renewed: no other worker should have to wait until it expires
                self._leases.release(lease)

    def _is_hung(self, renewed: RenewedLease) -> bool:
        return time.monotonic() - renewed.heartbeat_at > self._hang_timeout_s

    def _run(self) -> None:
        while not self._closed.wait(self._interval_s):
            try:
                self.renew_all()
            except Exception:
                logger.exception("leases were not renewed")
