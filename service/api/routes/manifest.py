"""``GET /jobs/{job}/manifest``: a job's manifest as JSON lines, streamed."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import APIRouter
from starlette.responses import StreamingResponse

from service.api.auth import KeyedRoute
from service.api.openapi import answers
from service.api.own_jobs import OwnJob
from service.api.services import ServicesDep
from service.api.slots import HeldStream
from service.jobs.manifest import manifest_line
from service.jobs.repository import JobRepository
from service.jobs.spec import JobSpec

router = APIRouter(route_class=KeyedRoute, tags=["results"])
_PIECE_BYTES = 1 << 16


@router.get(
    "/jobs/{job}/manifest",
    summary="Read a job's manifest",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "JSON lines: keys, hashes, seed, scores and parameters of each twin.",
            "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
        },
        **answers(404, 503),
    },
)
def read_manifest(spec: OwnJob, services: ServicesDep) -> StreamingResponse:
    """The ``manifest.jsonl`` of the archive, in the order of the twins' indices."""
    return HeldStream(
        _pieces(services.repository, spec),
        slots=services.transfers,
        tenant=spec.tenant,
        media_type="application/x-ndjson",
    )


def _pieces(repository: JobRepository, spec: JobSpec) -> Iterator[bytes]:
    # Each piece crosses from a thread to the event loop, so many lines are sent at a time.
    piece = bytearray()
    for record, item in repository.chunks.items(spec):
        if item.error is None:
            piece += manifest_line(spec, record, item)
        if len(piece) >= _PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece)
