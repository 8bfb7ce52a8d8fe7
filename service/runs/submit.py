"""Acceptance: from a request to a run in the store, once for each idempotency key.

The key's record reserves a run's id, then the spec makes the run exist, then it is sent. A crash before the spec leaves
an id that the same key fills; after it, a run that the sweeper sends.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from service.broker.run_queue import RunSender
from service.errors import BrokerUnavailable, IdempotencyConflict, ObjectExists, ObjectNotFound, UnknownRun
from service.jobs.submit import check_idempotency_key
from service.kit.run_kinds import RunKind, kind_of, new_run_id
from service.kit.validation import truncated_repr
from service.runs.repository import RunRepository
from service.runs.spec import RunSpec
from service.store import keys

_log = logging.getLogger("twinset.runs")


@dataclass(frozen=True)
class RunSubmitter:
    """Takes runs in."""

    repository: RunRepository
    queue: RunSender

    def accept(
        self,
        kind: RunKind,
        tenant: str,
        given: dict[str, Any],
        make: Callable[[str, str | None], RunSpec],
        *,
        before: Callable[[str], None] = lambda run: None,
        complete: Callable[[RunSpec], RunSpec] = lambda spec: spec,
        idempotency_key: str | None = None,
    ) -> tuple[RunSpec, bool]:
        """The run for the request ``given``, and whether this call made it; its spec is in the store when it returns.

        ``make(run, idempotency)`` makes the spec under that id, or raises what is wrong with the request;
        ``before(run)`` stores what has to be there before the spec is; ``complete(spec)`` adds to the spec, whose id is
        certain by then, what is given to one run only, and to that one again if it asks again. Raises
        :class:`IdempotencyConflict` for a key that came before with another body.
        """
        record = None
        reserved = None
        if idempotency_key is not None:
            check_idempotency_key(idempotency_key)
            record = _record(kind, tenant, idempotency_key)
            fingerprint = hashlib.sha256(json.dumps(given, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
            reserved = self._reserved(record, fingerprint, idempotency_key)
            if reserved is not None and (there := self._accepted(reserved, tenant, idempotency_key)) is not None:
                return there, False
        spec = make(reserved or new_run_id(kind), record)
        if record is not None and reserved is None:
            text = json.dumps({"format": 1, "run": spec.run, "fingerprint": fingerprint}).encode()
            try:
                self.repository.store.put(record, text, if_absent=True)
            except ObjectExists:
                winner = self._reserved(record, fingerprint, idempotency_key or "") or spec.run
                if (there := self._accepted(winner, tenant, idempotency_key or "")) is not None:
                    return there, False
                spec = spec.model_copy(update={"run": winner})
        before(spec.run)
        spec = complete(spec)
        if not self.repository.write_spec(spec):
            return self.repository.read_spec(spec.run, tenant=tenant), False
        self.send(spec.run)
        return spec, True

    def knows(self, kind: RunKind, tenant: str, idempotency_key: str) -> bool:
        """Whether the key came before, with whatever body."""
        return self.repository.store.head(_record(kind, tenant, idempotency_key)) is not None

    def send(self, run: str) -> None:
        """Sends the run to the workers; a broker that is down is left to the sweeper."""
        try:
            self.queue.send_run(run)
        except BrokerUnavailable as error:
            _log.warning("%s", error.detail)

    def _accepted(self, run: str, tenant: str, key: str) -> RunSpec | None:
        """The run that the key stands for, if it was accepted. Raises :class:`IdempotencyConflict` for one that is
        being deleted."""
        try:
            return self.repository.read_spec(run, tenant=tenant)
        except UnknownRun:
            if not self.repository.is_deleted(run):
                return None
        raise IdempotencyConflict(
            f"Idempotency-Key {truncated_repr(key)} stands for {kind_of(run)} {self._called(run)}, which is being deleted; send a new key",
            run=run,
        )

    def _called(self, run: str) -> str:
        """What users call the run: its id, or a dataset's name@version."""
        spec = self.repository.stored_spec(run) if kind_of(run) is RunKind.DATASET else None
        return run if spec is None or spec.name is None else spec.name

    def _reserved(self, record: str, fingerprint: str, key: str) -> str | None:
        try:
            found = json.loads(self.repository.store.get(record))
        except ObjectNotFound:
            return None
        if found["fingerprint"] != fingerprint:
            raise IdempotencyConflict(
                f"Idempotency-Key {truncated_repr(key)} came before with another body, as {self._called(found['run'])}; "
                "send the same body again, or a new key",
                run=found["run"],
            )
        return str(found["run"])


def _record(kind: RunKind, tenant: str, idempotency_key: str) -> str:
    """Where it is kept what the key stands for; the same key of another kind of request is another."""
    return keys.idempotency(tenant, hashlib.sha256(f"{kind.value}\n{idempotency_key}".encode()).hexdigest())
