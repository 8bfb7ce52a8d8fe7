"""What a receiver of callbacks is sent, for the API's description: nothing here is served by us."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header

from service.callbacks.message import CallbackMessage

router = APIRouter()


@router.post(
    "{$request.body#/callback_url}",
    summary="The job has ended",
    status_code=204,
    responses={
        204: {"description": "Any 2xx: taken, and not sent again."},
        410: {"description": "Not wanted any more: not sent again."},
        "default": {"description": "Anything else, redirects too: sent again later. 429 and 503 may say when, by Retry-After."},
    },
)
def job_ended(
    body: CallbackMessage,
    webhook_id: Annotated[str, Header(description="The same at every attempt: one that came before can be dropped.")],
    webhook_timestamp: Annotated[int, Header(description="When this attempt was made, in seconds since 1970.")],
    webhook_signature: Annotated[
        str, Header(description="`v1,` and base64 of HMAC-SHA256 over `id.timestamp.body`; one for each secret in force.")
    ],
) -> None:
    """Sent once at least. Check the signature before anything else: https://www.standardwebhooks.com has libraries."""
