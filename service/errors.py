"""The tree of errors that Twinset raises on purpose.

Each class has an HTTP status and a stable slug; ``/problems/{slug}`` is its problem type (RFC 9457). The detail of an
instance names the value, the limit and the remedy.

    TwinsetError                     500  internal-error
    ├── InvalidRequest               422  invalid-request          errors=[{"pointer", "detail"}, ...]
    │   └── UnknownClass             422  unknown-class
    ├── Unauthorized                 401  unauthorized
    ├── LimitReached                 429  limit-reached            limit=..., max=..., used=...
    ├── UnknownApiKey                404  unknown-api-key
    ├── UnknownModel                 404  unknown-model
    │   └── UnknownAlias             404  unknown-alias
    ├── ModelConflict                409  model-conflict
    ├── InvalidModel                 422  invalid-model            errors=[{"pointer" or "file", "detail"}, ...]
    ├── UnknownJob                   404  unknown-job
    ├── UnknownUpload                404  unknown-upload
    ├── UnknownRun                   404  unknown-run
    │   └── UnknownDataset           404  unknown-dataset
    ├── IdempotencyConflict          409  idempotency-conflict
    ├── JobStateConflict             409  job-state-conflict
    ├── TrainingFailed               409  training-failed
    ├── BodyTooLarge                 413  body-too-large
    ├── LinkExpired                  403  link-expired
    ├── LinkInvalid                  403  link-invalid
    ├── NotReady                     503  not-ready
    ├── BrokerUnavailable            503  broker-unavailable
    ├── StoreError                   503  store-error
    │   ├── ObjectNotFound           404  object-not-found         key=...
    │   ├── ObjectExists             409  object-exists            key=...
    │   ├── InvalidKey               400  invalid-key              key=...
    │   ├── ObjectTooLarge           413  object-too-large         key=..., size=..., max=...
    │   ├── ObjectDamaged            503  object-damaged           key=...
    │   ├── RecordUnreadable         409  record-unreadable        key=...
    │   └── StoreUnavailable         503  store-unavailable
    ├── CardError                    422  card-error
    ├── InvalidDataset               422  invalid-dataset
    │   └── ArchiveRefused           422  archive-refused
    ├── MissingExtra                 501  missing-extra            extra=...
    ├── WeightsError                 500  weights-error
    └── SettingsError                500  settings-error
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar


class TwinsetError(Exception):
    """The root of the tree.

    ``detail`` is a sentence for people; ``extra`` has further JSON-able members of the problem document. ``headers`` go
    with an answer that has this error.
    """

    status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "Something went wrong inside Twinset"
    headers: Mapping[str, str] = MappingProxyType({})

    def __init__(self, detail: str, **extra: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.extra = extra

    def problem(self) -> dict[str, Any]:
        """The members of this error's ``application/problem+json`` document."""
        own = {"type": f"/problems/{self.slug}", "title": self.title, "status": self.status, "detail": self.detail}
        return {**self.extra, **own}


class InvalidRequest(TwinsetError):
    """A request that is not valid; ``errors`` lists the wrong members by JSON pointer."""

    status = 422
    slug = "invalid-request"
    title = "The request is not valid"


class TrainingFailed(TwinsetError):
    """A training that cannot go on: another attempt would end the same way."""

    status = 409
    slug = "training-failed"
    title = "The training cannot go on"


class UnknownClass(InvalidRequest):
    """A class name that is not in the model's card."""

    slug = "unknown-class"
    title = "The model knows no such class"


class Unauthorized(TwinsetError):
    """A request without an API key where one is needed, or with an invalid one."""

    status = 401
    slug = "unauthorized"
    title = "A valid API key is needed"
    headers = MappingProxyType({"WWW-Authenticate": "Bearer"})


class LimitReached(TwinsetError):
    """A limit of a tenant is reached: requests per second, queued samples, stored bytes, or what it may hold open.

    ``limit`` names the setting, ``max`` is its value, ``used`` how much of it is in use, where that is counted.
    """

    status = 429
    slug = "limit-reached"
    title = "A limit of the tenant is reached"

    def __init__(self, detail: str, *, retry_after_s: int, **extra: Any) -> None:
        super().__init__(detail, **extra)
        self.retry_after_s = retry_after_s
        self.headers = {"Retry-After": str(retry_after_s)}


class UnknownApiKey(TwinsetError):
    """An id of no API key."""

    status = 404
    slug = "unknown-api-key"
    title = "No such API key"


class UnknownModel(TwinsetError):
    """A model, or a version of one, that is not registered."""

    status = 404
    slug = "unknown-model"
    title = "No such model"


class UnknownAlias(UnknownModel):
    """A name of no alias of a model, or of another tenant's."""

    slug = "unknown-alias"
    title = "No such alias"


class ModelConflict(TwinsetError):
    """An action that the state of the registry does not allow: a version exists with other contents, or is in use."""

    status = 409
    slug = "model-conflict"
    title = "The model's state does not allow this"


class InvalidModel(TwinsetError):
    """A model that cannot be registered: its card, its weights or the archive that holds them."""

    status = 422
    slug = "invalid-model"
    title = "The model cannot be registered"


class UnknownJob(TwinsetError):
    """An id of no job, or of another tenant's."""

    status = 404
    slug = "unknown-job"
    title = "No such job"


class UnknownUpload(TwinsetError):
    """An id of no uploaded mask, or of another tenant's."""

    status = 404
    slug = "unknown-upload"
    title = "No such upload"


class UnknownRun(TwinsetError):
    """An id of no dataset, augmentation set or export, or of another tenant's."""

    status = 404
    slug = "unknown-run"
    title = "No such run"


class UnknownDataset(UnknownRun):
    """A name or a version of no dataset."""

    slug = "unknown-dataset"
    title = "No such dataset"


class IdempotencyConflict(TwinsetError):
    """An idempotency key that was used before with another body."""

    status = 409
    slug = "idempotency-conflict"
    title = "The idempotency key was used for another request"


class JobStateConflict(TwinsetError):
    """An action that the state of a job or a run does not allow."""

    status = 409
    slug = "job-state-conflict"
    title = "The job's state does not allow this"


class BodyTooLarge(TwinsetError):
    """A request body over ``max_body_bytes``."""

    status = 413
    slug = "body-too-large"
    title = "The request body is too large"


class LinkExpired(TwinsetError):
    """A signed link that has expired."""

    status = 403
    slug = "link-expired"
    title = "The link has expired"


class LinkInvalid(TwinsetError):
    """A signed link with a wrong signature."""

    status = 403
    slug = "link-invalid"
    title = "The link's signature is not valid"


class NotReady(TwinsetError):
    """A service whose store or broker is not available."""

    status = 503
    slug = "not-ready"
    title = "The service is not ready"


class BrokerUnavailable(TwinsetError):
    """A broker (Redis or Valkey) that cannot be started or reached."""

    status = 503
    slug = "broker-unavailable"
    title = "The broker is not available"


class StoreError(TwinsetError):
    """An error of the object store."""

    status = 503
    slug = "store-error"
    title = "The object store failed"


class ObjectNotFound(StoreError):
    """A key without an object."""

    status = 404
    slug = "object-not-found"
    title = "No such object"


class ObjectExists(StoreError):
    """A conditional write to a key that has an object already."""

    status = 409
    slug = "object-exists"
    title = "The object exists already"


class InvalidKey(StoreError):
    """A key that no store accepts, or that this store cannot have."""

    status = 400
    slug = "invalid-key"
    title = "The object key is not valid"


class ObjectTooLarge(StoreError):
    """An object with more bytes than the store accepts."""

    status = 413
    slug = "object-too-large"
    title = "The object is too large"


class ObjectDamaged(StoreError):
    """An object whose bytes are not those that were stored, also when read again."""

    slug = "object-damaged"
    title = "A stored object is damaged"


class RecordUnreadable(StoreError):
    """A record, such as a job's spec, that is damaged or has a newer format: what it belongs to can only be deleted."""

    status = 409
    slug = "record-unreadable"
    title = "A record cannot be read"


class StoreUnavailable(StoreError):
    """A store that does not answer, or refuses access: network, credentials, bucket, disk."""

    slug = "store-unavailable"
    title = "The object store is not available"


class CardError(TwinsetError):
    """A model card that is missing or not valid."""

    status = 422
    slug = "card-error"
    title = "The model card is not valid"


class InvalidDataset(TwinsetError):
    """A dataset that cannot be read or written as asked: no known format, no class list, two items of one name, ..."""

    status = 422
    slug = "invalid-dataset"
    title = "The dataset is not valid"


class ArchiveRefused(InvalidDataset):
    """An archive that is damaged, has forbidden entries, or unpacks to more than is allowed."""

    slug = "archive-refused"
    title = "The archive cannot be unpacked"


class MissingExtra(TwinsetError):
    """A function that needs packages which are not installed; ``extra`` names the extra that installs them."""

    status = 501
    slug = "missing-extra"
    title = "A part of Twinset is not installed"


class WeightsError(TwinsetError):
    """Weights that are missing, damaged, or not those of the card."""

    slug = "weights-error"
    title = "The model's weights are not usable"


class SettingsError(TwinsetError):
    """A setting (an environment variable ``TWINSET_*``) with an invalid value."""

    slug = "settings-error"
    title = "A setting is not valid"
