"""Submission: from a checked request to a run in the store, once for each idempotency key.

The order makes every crash harmless. The idempotency record reserves the run's id; what the run needs is stored; the
spec makes the run exist; then it is sent. A crash before the spec leaves an id that the same key fills; after it, a run
that the sweeper sends. An endpoint does this::

    reservation = submitter.reserve(kind, tenant=tenant, key=key, body=body)
    if (existing := submitter.find(reservation)) is not None:
        return existing
    ...                                  # check the request; raise what is wrong with it
    reservation = reservation.bind()     # from here on the id is certain
    if (existing := submitter.find(reservation)) is not None:
        return existing
    ...                                  # store what must be there before the spec
    return submitter.submit(RunSpec(run=reservation.id, idempotency=reservation.record, ...))
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.broker.run_queue import RunSender
from service.errors import BrokerUnavailable, UnknownRun
from service.jobs import idempotency
from service.jobs.idempotency import Reservation
from service.kit.log_context import current_origin
from service.kit.run_kinds import RunKind, kind_of, new_run_id
from service.runs.repository import RunRepository
from service.runs.spec import RunSpec

_log = logging.getLogger("twinset.runs")


@dataclass(frozen=True)
class RunSubmitter:
    """Makes runs exist, and sends them to the workers."""

    repository: RunRepository
    queue: RunSender

    def reserve(self, kind: RunKind, *, tenant: str, key: str | None, body: Mapping[str, Any]) -> Reservation:
        """The id for a request with ``body``: the one that ``key`` stands for, or a new one. Writes nothing.

        Raises :class:`InvalidRequest` for a malformed key, and :class:`IdempotencyConflict` for a key that came before
        with another body.
        """
        return idempotency.reserve(self.repository.store, new_run_id(kind), tenant=tenant, key=key, body=body)

    def find(self, reservation: Reservation) -> RunSpec | None:
        """The run that the reservation's key stands for; None if it does not exist yet.

        Raises :class:`IdempotencyConflict` for a run that is being deleted.
        """
        run = reservation.id
        if not reservation.found:
            return None
        try:
            return self.repository.read_spec(run)
        except UnknownRun:
            if not self.repository.is_deleted(run):
                return None
        name = idempotency.name_of(self.repository.store, run)
        raise reservation.conflict(f"stands for {kind_of(run)} {name}, which is being deleted; send a new key")

    def knows(self, kind: RunKind, *, tenant: str, key: str) -> bool:
        """Whether the key came before, with any body."""
        return idempotency.find(self.repository.store, tenant=tenant, key=key, kind=kind) is not None

    def submit(self, spec: RunSpec) -> tuple[RunSpec, bool]:
        """Writes the spec and sends the run; the run's spec, and whether this call wrote it.

        When it returns, the spec is in the store.
        """
        spec = spec.model_copy(update=current_origin())
        if not self.repository.write_spec(spec):
            return self.repository.read_spec(spec.run, tenant=spec.tenant), False
        self.send(spec)
        return spec, True

    def send(self, spec: RunSpec) -> None:
        """Sends the run to the workers. If the broker is down, the sweeper sends it later."""
        try:
            self.queue.send_run(spec.run, spec.tenant)
        except BrokerUnavailable as error:
            _log.warning("%s", error.detail)
