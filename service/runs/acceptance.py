"""Acceptance: from a request to a run in the store, once for each idempotency key.

The key's record reserves a run's id, then the spec makes the run exist, then it is sent. A crash before the spec leaves an id that
the same key fills; after it, a run that the sweeper sends.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from service.errors import BrokerUnavailable, IdempotencyConflict, ObjectExists, ObjectNotFound, UnknownRun
from service.jobs.faults import shown
from service.jobs.submission import check_idempotency_key
from service.runs.kinds import Kind, new_run_id
from service.runs.ledger import RunLedger
from service.runs.queue import RunSender
from service.runs.record import RunSpec
from service.store import keys

_log = logging.getLogger("twinset.runs")


@dataclass(frozen=True)
class Acceptance:
    """Takes runs in."""

    ledger: RunLedger
    queue: RunSender

    def accept(
        self,
        kind: Kind,
        tenant: str,
        given: dict[str, Any],
        make: Callable[[str, str | None], RunSpec],
        *,
        before: Callable[[str], None] = lambda run: None,
        idempotency_key: str | None = None,
    ) -> tuple[RunSpec, bool]:
        """The run for the request ``given``, and whether this call made it; its spec is in the store when it returns.

        ``make(run, idempotency)`` makes the spec under that id, or raises what is wrong with the request; ``before(run)`` stores
        what has to be there before the spec is. Raises
        :class:`IdempotencyConflict` for a key that came before with another body.
        """
        record = None
        reserved = None
        if idempotency_key is not None:
            check_idempotency_key(idempotency_key)
            record = keys.idempotency(tenant, hashlib.sha256(f"{kind.value}\n{idempotency_key}".encode()).hexdigest())
            fingerprint = hashlib.sha256(json.dumps(given, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
            reserved = self._reserved(record, fingerprint, idempotency_key)
            if reserved is not None:
                try:
                    return self.ledger.read_spec(reserved, tenant=tenant), False
                except UnknownRun:
                    if self.ledger.is_deleted(reserved):
                        raise IdempotencyConflict(
                            f"Idempotency-Key {shown(idempotency_key)} stands for {kind.value} {reserved}, which is being deleted; "
                            "send a new key",
                            run=reserved,
                        ) from None
        spec = make(reserved or new_run_id(kind), record)
        if record is not None and reserved is None:
            text = json.dumps({"format": 1, "run": spec.run, "fingerprint": fingerprint}).encode()
            try:
                self.ledger.store.put(record, text, if_absent=True)
            except ObjectExists:
                winner = self._reserved(record, fingerprint, idempotency_key or "") or spec.run
                spec = spec.model_copy(update={"run": winner})
        before(spec.run)
        made = self.ledger.write_spec(spec)
        self.send(spec.run)
        return (spec, True) if made else (self.ledger.read_spec(spec.run, tenant=tenant), False)

    def send(self, run: str) -> None:
        """Sends the run to the workers; a broker that is down is left to the sweeper."""
        try:
            self.queue.send_run(run)
        except BrokerUnavailable as error:
            _log.warning("%s", error.detail)

    def _reserved(self, record: str, fingerprint: str, key: str) -> str | None:
        try:
            found = json.loads(self.ledger.store.get(record))
        except ObjectNotFound:
            return None
        if found["fingerprint"] != fingerprint:
            raise IdempotencyConflict(
                f"Idempotency-Key {shown(key)} came before with another body, as {found['run']}; "
                "send the same body again, or a new key",
                run=found["run"],
            )
        return str(found["run"])
