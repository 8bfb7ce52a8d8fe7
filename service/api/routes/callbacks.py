"""The webhooks that a receiver gets, for the OpenAPI description only: nothing here is served."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header

from service.runs.webhook_payload import CallbackMessage, RunCallbackMessage

router = APIRouter()
export_router = APIRouter()
augmentation_router = APIRouter()
training_router = APIRouter()
_AT = "{$request.body#/callback_url}"
_ANSWERED: dict[str, Any] = {
    "status_code": 204,
    "responses": {
        204: {"description": "Any 2xx: accepted, not sent again."},
        410: {"description": "No longer wanted: not sent again."},
        "default": {"description": "Anything else, also redirects: sent again later. 429 and 503 may set Retry-After."},
    },
}
Id = Annotated[str, Header(description="The same at every attempt, so that duplicates can be dropped.")]
Timestamp = Annotated[int, Header(description="Time of this attempt in seconds since 1970.")]
Signature = Annotated[
    str, Header(description="`v1,` and base64 of HMAC-SHA256 over `id.timestamp.body`; one for each active secret.")
]


@router.post(_AT, summary="The job has ended", **_ANSWERED)
def job_ended(
    body: CallbackMessage, webhook_id: Id, webhook_timestamp: Timestamp, webhook_signature: Signature
) -> None:
    """Sent at least once. Check the signature first: https://www.standardwebhooks.com has libraries."""


@export_router.post(_AT, summary="The export has ended", **_ANSWERED)
def export_ended(
    body: RunCallbackMessage, webhook_id: Id, webhook_timestamp: Timestamp, webhook_signature: Signature
) -> None:
    """Sent at least once, unless the export was deleted. Its type is `export.` and the state. Check the signature
    first: https://www.standardwebhooks.com has libraries."""


@augmentation_router.post(_AT, summary="The augmentation set has ended", **_ANSWERED)
def augmentation_ended(
    body: RunCallbackMessage, webhook_id: Id, webhook_timestamp: Timestamp, webhook_signature: Signature
) -> None:
    """Sent at least once, unless the set was deleted. Its type is `augmentation.` and the state. Check the signature
    first: https://www.standardwebhooks.com has libraries."""


@training_router.post(_AT, summary="The training has ended", **_ANSWERED)
def training_ended(
    body: RunCallbackMessage, webhook_id: Id, webhook_timestamp: Timestamp, webhook_signature: Signature
) -> None:
    """Sent at least once, unless the training was deleted. Its type is `training.` and the state. Check the signature
    first: https://www.standardwebhooks.com has libraries."""
