"""``GET /jobs/{job}/archive``: the results of a job as one zip, streamed.

Only a few images are in memory at a time, and the manifest is on disk, so a job of a hundred thousand twins needs no
more memory than a job of eight. Twins that are adjacent in a shard are read by one request.
"""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import IO

from fastapi import APIRouter
from starlette.responses import StreamingResponse

from model_store.card import IGNORE_INDEX, ModelCard
from service.api.auth import KeyedRoute
from service.api.openapi import answers
from service.api.own_jobs import OwnJob
from service.api.services import Services, ServicesDep
from service.api.slots import HeldStream
from service.errors import CardError, UnknownModel
from service.jobs.manifest import manifest_line
from service.jobs.sample_files import FOLDERS, group_adjacent, read_sample_files, sample_files_of
from service.jobs.spec import ChunkRecord, JobSpec, SampleRecord
from service.kit.prefetch import prefetch
from service.kit.zip_stream import Member, member, zip_stream

router = APIRouter(route_class=KeyedRoute, tags=["results"])
_MANIFEST_IN_MEMORY_BYTES = 1 << 20
_PIECE_BYTES = 1 << 16


@router.get(
    "/jobs/{job}/archive",
    summary="Download a job's twins",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "A zip of images/, masks/ and instances/ where there are any, manifest.jsonl, README.md and "
            "card.json.",
            "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
        },
        **answers(404, 503),
    },
)
def download_archive(spec: OwnJob, services: ServicesDep) -> StreamingResponse:
    """All twins made so far; README.md says if the job had not ended. A missing or damaged object aborts it."""
    return HeldStream(
        archive_stream(services, spec),
        slots=services.transfers,
        tenant=spec.tenant,
        media_type="application/zip",
        headers={"Content-Disposition": f'attachment; filename="{spec.job}.zip"', "X-Content-Type-Options": "nosniff"},
    )


def archive_stream(services: Services, spec: JobSpec) -> Iterator[bytes]:
    """The bytes of the job's archive."""
    with (
        tempfile.SpooledTemporaryFile(max_size=_MANIFEST_IN_MEMORY_BYTES) as manifest,
        closing(zip_stream(_members(services, spec, manifest))) as pieces,
    ):
        yield from _regrouped(pieces)


def _regrouped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of similar size, except the first, which is sent at once.

    Each piece crosses from a thread to the event loop, which is slow for small pieces and copies large ones repeatedly.
    """
    buffer, wanted_bytes = bytearray(), 1
    for piece in pieces:
        for at in range(0, len(piece), _PIECE_BYTES):
            buffer += memoryview(piece)[at : at + _PIECE_BYTES]
            if len(buffer) >= wanted_bytes:
                yield bytes(buffer)
                buffer.clear()
                wanted_bytes = _PIECE_BYTES
    if buffer:
        yield bytes(buffer)


def _members(services: Services, spec: JobSpec, manifest: IO[bytes]) -> Iterator[Member]:
    card = _card_if_known(services, spec)
    ended = services.repository.read_summary(spec.job) is not None
    yield member("README.md", readme(spec, card, ended=ended).encode(), modified=spec.created_at)
    if card is not None:
        yield member("card.json", card.model_dump_json(indent=2).encode(), modified=spec.created_at)

    crc32 = size = 0
    items = group_adjacent(services.repository.chunks.items(spec))
    with closing(prefetch(lambda run: _files(services, run), items)) as runs:
        for run, files in runs:
            for (record, item), named in zip(run, files, strict=True):
                for name, data in named:
                    yield member(name, data, modified=record.finished_at)
                line = manifest_line(spec, record, item)
                crc32, size = zlib.crc32(line, crc32), size + len(line)
                manifest.write(line)

    manifest.seek(0)
    pieces = iter(lambda: manifest.read(_PIECE_BYTES), b"")
    yield Member("manifest.jsonl", spec.created_at, size, crc32, pieces)


def _files(services: Services, run: Sequence[tuple[ChunkRecord, SampleRecord]]) -> list[list[tuple[str, bytes]]]:
    """The files of each twin with their names in the archive, checked against the record before they are sent."""
    files = [sample_files_of(item) for _, item in run]
    data = iter(read_sample_files(services.store, [file for of_one in files for file in of_one]))
    return [
        [(f"{FOLDERS[file.kind]}/{item.index:08d}.png", next(data)) for file in of_one]
        for (_, item), of_one in zip(run, files, strict=True)
    ]


def _card_if_known(services: Services, spec: JobSpec) -> ModelCard | None:
    try:
        return services.catalogue.pinned(spec.model_key).card
    except (UnknownModel, CardError):
        return None  # the model was removed meanwhile; its results are still available


def readme(spec: JobSpec, card: ModelCard | None, *, ended: bool) -> str:
    """The README of the archive; of a job that has not ``ended``, it says that there will be more."""
    lines = [
        f"# Twins of job {spec.job}",
        "",
        f"Made by {spec.model} for {_asked(spec)}: images drawn by a model, not photographs of real places or people.",
        *([] if ended else ["", "**The job had not ended**: these are the twins made until then; fetch them again."]),
        "",
        "- `images/NNNNNNNN.png`: the image, RGB",
        _about_masks(spec, card),
        *(["- `instances/NNNNNNNN.png`: the number of each pixel's object, 0 for none"] if spec.instances else []),
        "- `manifest.jsonl`: a line for each twin, with its seed, the classes in its mask, and everything needed to",
        "  make it again; `index` is the number in the file names here, keys and offsets are those of the object store",
        "- `card.json`: the model's card",
    ]
    if card is None:
        return "\n".join(lines[:-1]) + "\n"
    lines += ["", "| index | class | colour |", "|---|---|---|"]
    lines += [f"| {entry.index} | {entry.name} | #{bytes(entry.colour).hex()} |" for entry in card.classes]
    lines += [
        "",
        f"Intended use: {card.intended_use}",
        "",
        f"Limits of use: {card.limits_of_use}",
        "",
        f"Licence of the model: {card.licence}",
    ]
    return "\n".join(lines) + "\n"


def _asked(spec: JobSpec) -> str:
    """The conditions of the request, in words."""
    given = []
    if spec.prompt is not None:
        given.append(f"the prompt {spec.prompt!r}")
    if spec.classes is not None:
        given.append(f"the classes {', '.join(spec.classes)}")
    if spec.mask is not None:
        given.append("a given mask" if len(spec.mask) == 1 else f"{len(spec.mask)} given masks, in order")
    return " and ".join(given)


def _about_masks(spec: JobSpec, card: ModelCard | None) -> str:
    if spec.mask is not None:
        return "- `masks/NNNNNNNN.png`: the mask it was drawn for, one class index a pixel"
    if card is not None and not card.makes_mask(spec.inputs):
        return "- no masks: the model draws an image for a given mask, and this job gave none"
    return f"- `masks/NNNNNNNN.png`: its mask, one class index a pixel; {IGNORE_INDEX} means that no class is certain"
