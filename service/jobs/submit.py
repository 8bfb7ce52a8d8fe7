"""Submission: from a request to a job in the store, once for each idempotency key.

The order makes every crash harmless. The idempotency record reserves a job id; the given masks are stored; the spec
makes the job exist; then its first chunks are sent. A crash before the spec leaves an id that the same key fills, files
that are removed after a day (:mod:`service.jobs.garbage`), and entries that count for ten minutes
(:mod:`service.jobs.usage`); after it, a job that the sweeper sends.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from service.broker.queues import ChunkSender
from service.errors import (
    BrokerUnavailable,
    CardError,
    UnknownJob,
    UnknownModel,
)
from service.jobs import idempotency
from service.jobs.idempotency import RESERVATION_TTL, Reservation
from service.jobs.quotas import Quotas
from service.jobs.repository import JobRepository
from service.jobs.request import GenerateRequest
from service.jobs.spec import JobSpec
from service.jobs.validate import admit
from service.kit.ids import accepted_at, new_job_id
from service.kit.log_context import current_origin
from service.masks.given import with_references
from service.masks.reader import MaskReader, ReadMask
from service.masks.uploads import Uploads
from service.registry.catalogue import Catalogue
from service.registry.uses import add_use
from service.settings import Settings
from service.store.immutable import StoredObject, put_immutable

WEIGHTS_FILE = "model.safetensors"
_MAX_CONCURRENT_PUTS = 8
_log = logging.getLogger("twinset.jobs")


@dataclass(frozen=True)
class JobSubmitter:
    """Turns requests into jobs."""

    settings: Settings
    repository: JobRepository
    catalogue: Catalogue
    queue: ChunkSender
    uploads: Uploads
    reader: MaskReader
    limits: Quotas
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def submit(
        self,
        request: GenerateRequest,
        *,
        tenant: str,
        body: dict[str, Any],
        idempotency_key: str | None = None,
        model: str | None = None,
    ) -> tuple[JobSpec, bool]:
        """The job for ``request`` of ``tenant``, and whether this call made it. ``body`` is the request as it came.

        ``model`` is the key of a model that was resolved before, for a set that was accepted with it; otherwise the
        request's own is resolved now, once and for all of the job's chunks.

        When it returns, masks and spec are in the store. Raises :class:`InvalidRequest`, :class:`UnknownModel`,
        :class:`IdempotencyConflict`, :class:`LimitReached`, or the store's error; then no job was created.
        """
        # A mask that comes along is the same as one sent before: in the key's fingerprint, and in the spec.
        body = with_references(body, max_masks=self.settings.max_masks)
        reservation = idempotency.reserve(
            self.repository.store, new_job_id(self.now()), tenant=tenant, key=idempotency_key, body=body
        )
        if reservation.found:
            try:
                return self.repository.read_spec(reservation.id), False
            except UnknownJob:
                self._check_may_be_filled(reservation)
                _log.info("job %s was reserved but never written; writing it now", reservation.id)

        self.limits.check_stored(tenant=tenant)
        spec, masks = self._spec(request, tenant, body, reservation, model)
        self.limits.take_queue(spec)
        job = None
        try:
            job = reservation.bind().id
        finally:
            if job != spec.job:
                # The request that came first, with this body or another, has its own place in the queue.
                self.limits.leave_queue(spec)
        spec = spec.model_copy(update={"job": job})
        self._store_masks(spec, masks)
        return self.accept(spec)

    def accept(self, spec: JobSpec) -> tuple[JobSpec, bool]:
        """Writes the spec and sends the job's first chunks; the job's spec, and whether this call wrote it.

        The job is counted as queued and its masks are stored before. Raises :class:`UnknownModel` if its model was
        deleted meanwhile.
        """
        try:
            add_use(self.repository.store, spec.model_key, spec.job)
        except UnknownModel:
            self.limits.leave_queue(spec)
            raise
        if not self.repository.write_spec(spec):
            return self.repository.read_spec(spec.job), False
        self._send_first_chunks(spec)
        return spec, True

    def _check_may_be_filled(self, reservation: Reservation) -> None:
        """Raises :class:`IdempotencyConflict` if the key's job is being deleted, or its objects may be removed soon."""
        job = reservation.id
        if self.repository.deletions.is_pending(job):
            raise reservation.conflict(f"stands for job {job}, which is being deleted; send a new key")
        if self.now() - accepted_at(job) > RESERVATION_TTL:
            raise reservation.conflict(f"came before, as job {job}, which was never accepted; send a new key")

    def _spec(
        self,
        request: GenerateRequest,
        tenant: str,
        body: dict[str, Any],
        reservation: Reservation,
        model: str | None,
    ) -> tuple[JobSpec, tuple[ReadMask, ...]]:
        entry = self.catalogue.find(request.model, tenant=tenant) if model is None else self.catalogue.pinned(model)
        card = entry.card
        checked = admit(request, card, self.settings, self.reader, tenant=tenant)
        weights = card.files.get(WEIGHTS_FILE)
        if weights is None:
            raise CardError(
                f"the card of {card.id} names no {WEIGHTS_FILE}, so the model cannot be used; register it again"
            )
        asked = checked.parameters
        of_older_workers = asked.fit not in ("stretch", "canvas") and asked.instances is None
        spec = JobSpec(
            **{**dict(asked), "model": entry.reference(tenant)},
            format=5 if entry.owner is not None else 3 if of_older_workers else 4,
            job=reservation.id,
            tenant=tenant,
            model_owner=entry.owner,
            name=checked.name,
            created_at=self.now(),
            weights_sha256=weights.sha256,
            system=card.system,
            sampler=card.sampler,
            chunk_size=self.settings.chunk_size,
            callback=checked.callback,
            request=body,
            idempotency_key=reservation.key,
            **current_origin(),
        )
        return spec, checked.masks

    def _store_masks(self, spec: JobSpec, masks: Sequence[ReadMask]) -> None:
        """Stores the job's masks with their instance maps, and the files that came with the request.

        A repeat with the same key writes the same bytes, or those of another version of the code under keys of their
        own; the spec that is written first says which count.
        """
        if not masks:
            return
        kept = [file for mask in masks for file in (mask.mask, mask.instances) if file is not None]
        files = {file.upload: file.file for file in kept if file.file is not None}
        with ThreadPoolExecutor(_MAX_CONCURRENT_PUTS, thread_name_prefix="store-masks") as pool:
            puts: list[Future[object]] = [
                pool.submit(self.uploads.put, file, tenant=spec.tenant) for file in files.values()
            ]
            for file, place in zip(kept, spec.given_files, strict=True):
                given = StoredObject(key=place.key, sha256=file.sha256, bytes=len(file.png))
                puts.append(pool.submit(put_immutable, self.repository.store, given, file.png))
            for put in puts:
                put.result()

    def _send_first_chunks(self, spec: JobSpec) -> None:
        try:
            first = range(min(self.settings.chunks_in_flight, spec.chunks))
            self.queue.send_chunks(spec.job, first, spec.priority, spec.tenant)
        except BrokerUnavailable as error:
            _log.warning("%s", error.detail)
