"""Submission: from an admitted request to a job in the store, once for each idempotency key.

The order makes every crash harmless. The idempotency record reserves a job id; the given masks are stored; the spec
makes the job exist; then its first chunks are sent. A crash before the spec leaves an id that the same key fills, files
that are nobody's and go after a day (:mod:`service.jobs.garbage`), and entries that count for ten minutes
(:mod:`service.jobs.usage`); after it, a job that the sweeper sends.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from service.broker.queues import ChunkSender
from service.errors import (
    BrokerUnavailable,
    CardError,
    IdempotencyConflict,
    InvalidRequest,
    ObjectExists,
    ObjectNotFound,
    UnknownJob,
)
from service.jobs.quotas import Quotas
from service.jobs.repository import JobRepository
from service.jobs.request import GenerateRequest
from service.jobs.spec import JobSpec
from service.jobs.validate import admit
from service.kit.ids import accepted_at, new_job_id
from service.kit.seeds import new_job_seed
from service.kit.tenants import DEFAULT_TENANT
from service.kit.validation import truncated_repr
from service.masks.given import with_references
from service.masks.reader import MaskReader, ReadMask
from service.masks.uploads import Uploads
from service.registry.catalogue import Catalogue
from service.settings import Settings
from service.store import keys

WEIGHTS_FILE = "model.safetensors"
MAX_KEY_CHARS = 255
FILLED_IN_FOR = timedelta(hours=12)
"""For so long a reserved id waits for its job. What lies under one that has none after a day is removed."""
_MAX_CONCURRENT_PUTS = 8
_log = logging.getLogger("twinset.jobs")


@dataclass(frozen=True)
class JobSubmitter:
    """Takes the requests of ``tenant`` in."""

    settings: Settings
    repository: JobRepository
    catalogue: Catalogue
    queue: ChunkSender
    uploads: Uploads
    reader: MaskReader
    limits: Quotas
    tenant: str = DEFAULT_TENANT
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def of(self, tenant: str) -> JobSubmitter:
        """The same for another tenant: its uploads, its idempotency keys, its limits."""
        return replace(self, tenant=tenant, uploads=self.uploads.of(tenant), reader=self.reader.of(tenant))

    def submit(
        self, request: GenerateRequest, *, given: dict[str, Any], idempotency_key: str | None = None
    ) -> tuple[JobSpec, bool]:
        """The job for ``request``, and whether this call made it. ``given`` is the request's body as it came.

        When it returns, the spec is in the store, and the masks before it. Raises :class:`InvalidRequest`,
        :class:`UnknownModel`, :class:`IdempotencyConflict`, :class:`LimitReached`, or a store's error; then nothing has
        been accepted.
        """
        # By its ids, a mask sent along is the same as one sent before: so for the key's fingerprint, and in the spec.
        given = with_references(given, most=self.settings.max_masks)
        fingerprint = _fingerprint(given)
        reserved = None
        if idempotency_key is not None:
            check_idempotency_key(idempotency_key)
            reserved = self._reserved(idempotency_key, fingerprint)
            if reserved is not None:
                try:
                    return self.repository.read_spec(reserved), False
                except UnknownJob:
                    self._check_may_be_filled(reserved, idempotency_key)
                    _log.info("job %s was reserved but never written; writing it now", reserved)

        self.limits.check_stored(self.tenant)
        spec, masks = self._spec(request, given, reserved or new_job_id(self.now()), idempotency_key)
        self.limits.take_queue(spec)
        if idempotency_key is not None and reserved is None:
            job = None
            try:
                job = self._reserve(idempotency_key, fingerprint, spec.job)
            finally:
                if job != spec.job:
                    self.limits.leave_queue(
                        spec
                    )  # whoever came first, with this body or another, has taken its own place
            spec = spec.model_copy(update={"job": job})
        self._keep_masks(spec.job, masks)
        return self.accept(spec)

    def accept(self, spec: JobSpec) -> tuple[JobSpec, bool]:
        """Makes the job exist, for which a place in the queue is taken and whose masks are stored, and sends its first
        chunks; the job that holds, and whether this call made it."""
        self.repository.usage.add_job(spec)
        if not self.repository.write_spec(spec):
            return self.repository.read_spec(spec.job), False
        self._send_first_chunks(spec)
        return spec, True

    def _check_may_be_filled(self, job: str, key: str) -> None:
        """Raises :class:`IdempotencyConflict` where the key's job has been deleted, or may be taken for a leftover
        soon."""
        if self.repository.deletions.is_pending(job):
            raise IdempotencyConflict(
                f"Idempotency-Key {truncated_repr(key)} stands for job {job}, which is being deleted; send a new key",
                job=job,
            )
        if self.now() - accepted_at(job) > FILLED_IN_FOR:
            raise IdempotencyConflict(
                f"Idempotency-Key {truncated_repr(key)} came before, as job {job}, which was never accepted; send a new key",
                job=job,
            )

    def _spec(
        self, request: GenerateRequest, given: dict[str, Any], job: str, idempotency_key: str | None
    ) -> tuple[JobSpec, tuple[ReadMask, ...]]:
        card = self.catalogue.resolve(request.model)
        parameters = admit(request, card, self.settings, self.reader)
        weights = card.files.get(WEIGHTS_FILE)
        if weights is None:
            raise CardError(f"the card of {card.id} names no {WEIGHTS_FILE}, so it can make nothing; register it again")
        spec = JobSpec(
            job=job,
            tenant=self.tenant,
            name=parameters.name,
            created_at=self.now(),
            model=card.id,
            weights_sha256=weights.sha256,
            system=card.system,
            prompt=parameters.prompt,
            classes=parameters.classes,
            masks=None if parameters.masks is None else tuple(mask.given for mask in parameters.masks),
            count=parameters.count,
            seed=parameters.seed if parameters.seed is not None else new_job_seed(),
            steps=parameters.steps,
            guidance_scale=parameters.guidance_scale,
            guidance_target=parameters.guidance_target,
            eta=parameters.eta,
            size_px=parameters.size_px,
            sampler=card.sampler,
            chunk_size=self.settings.chunk_size,
            priority=request.priority,
            layout=parameters.layout,
            callback=parameters.callback,
            request=given,
            idempotency_key=idempotency_key,
        )
        return spec, parameters.masks or ()

    def _keep_masks(self, job: str, masks: Sequence[ReadMask]) -> None:
        """Stores the job's masks, and the files they came in. Whoever repeats it with the same key writes the same
        bytes."""
        if not masks:
            return
        files = {mask.given.upload: mask.file for mask in masks if mask.file is not None}
        with ThreadPoolExecutor(_MAX_CONCURRENT_PUTS, thread_name_prefix="keep-masks") as pool:
            kept = [pool.submit(self.uploads.keep, file) for file in files.values()]
            for number, mask in enumerate(masks):
                kept.append(pool.submit(self.repository.store.put, keys.job_input(job, number), mask.png))
            for put in kept:
                put.result()

    def _send_first_chunks(self, spec: JobSpec) -> None:
        try:
            self.queue.send_chunks(spec.job, range(min(self.settings.chunks_in_flight, spec.chunks)), spec.priority)
        except BrokerUnavailable as error:
            _log.warning("%s", error.detail)

    def reserved_job(self, key: str) -> str | None:
        """The job that ``key`` stands for, whatever its body was; it may not exist yet. None if the key never came."""
        record = self._record(key)
        return None if record is None else record["job"]

    def _record(self, key: str) -> dict[str, str] | None:
        try:
            return json.loads(self.repository.store.get(self._idempotency_object(key)))
        except ObjectNotFound:
            return None

    def _reserved(self, key: str, fingerprint: str) -> str | None:
        """The job that ``key`` stands for, if any. Raises :class:`IdempotencyConflict` if its body was another."""
        record = self._record(key)
        if record is None:
            return None
        if record["fingerprint"] != fingerprint:
            raise IdempotencyConflict(
                f"Idempotency-Key {truncated_repr(key)} came before with another body, as job {record['job']}; "
                "send the same body again, or a new key for a new job",
                job=record["job"],
            )
        return record["job"]

    def _reserve(self, key: str, fingerprint: str, job: str) -> str:
        """Binds ``key`` to ``job``, or to the job of whoever came first."""
        record = {"format": 1, "job": job, "fingerprint": fingerprint, "created_at": self.now().isoformat()}
        try:
            self.repository.store.put(self._idempotency_object(key), json.dumps(record).encode(), if_absent=True)
        except ObjectExists:
            return self._reserved(key, fingerprint) or job
        return job

    def _idempotency_object(self, key: str) -> str:
        return keys.idempotency(self.tenant, hashlib.sha256(key.encode()).hexdigest())


def _fingerprint(given: dict[str, Any]) -> str:
    """Two bodies have the same one if they say the same, whatever their spacing and the order of their members."""
    return hashlib.sha256(json.dumps(given, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def check_idempotency_key(key: str) -> None:
    """Raises :class:`InvalidRequest` for a key that is none."""
    if not 1 <= len(key) <= MAX_KEY_CHARS or not all(0x21 <= ord(character) <= 0x7E for character in key):
        raise InvalidRequest(
            f"Idempotency-Key {truncated_repr(key)} has {len(key)} characters; it must be 1 to {MAX_KEY_CHARS} visible ASCII characters, "
            "a UUID say"
        )
