"""Download of a job's twins into a folder, several at once, each checked against the sha256 of its record."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.cli.http_client import ApiClient
from service.errors import StoreError

_MAX_CONCURRENCY = 8
_ATTEMPTS = 2


@dataclass(frozen=True)
class FetchedTwin:
    """One twin on disk, with its record."""

    image: Path
    mask: Path | None
    sample: dict[str, Any]


def fetch_twins(client: ApiClient, job: str, folder: Path) -> Iterator[FetchedTwin]:
    """Writes ``images/{index:08d}.png``, ``masks/...`` and ``instances/...`` below ``folder``; yields twins by index.

    Samples that the job gave up are left out, and so are files that a twin lacks. Raises :class:`StoreError` if a
    file's sha256 is not the record's.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    made = (sample for sample in client.samples(job) if sample["error"] is None)
    with ThreadPoolExecutor(_MAX_CONCURRENCY, thread_name_prefix="fetch") as pool:
        yield from _in_order(pool, lambda sample: _fetch_twin(client, sample, folder), made)


def _fetch_twin(client: ApiClient, sample: dict[str, Any], folder: Path) -> FetchedTwin:
    name = f"{sample['index']:08d}.png"
    image, mask = folder / "images" / name, folder / "masks" / name
    image.write_bytes(_checked_bytes(client, sample["image"], f"image {sample['index']}"))
    if sample["mask"] is None:
        return FetchedTwin(image, None, sample)
    _fetch_file(client, sample["mask"], mask, f"mask {sample['index']}")
    if sample["instances"] is not None:
        _fetch_file(client, sample["instances"], folder / "instances" / name, f"instances {sample['index']}")
    return FetchedTwin(image, mask, sample)


def _fetch_file(client: ApiClient, file: dict[str, Any], path: Path, what: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(_checked_bytes(client, file, what))


def _checked_bytes(client: ApiClient, file: dict[str, Any], what: str) -> bytes:
    for _ in range(_ATTEMPTS):
        data = client.fetch(file["url"])
        found = hashlib.sha256(data).hexdigest()
        if found == file["sha256"]:
            return data
    raise StoreError(
        f"{what} came with sha256 {found}, but its record says {file['sha256']}; "
        "the object in the store was changed or damaged"
    )


def _in_order(
    pool: ThreadPoolExecutor, work: Callable[[dict[str, Any]], FetchedTwin], samples: Iterator[dict[str, Any]]
) -> Iterator[FetchedTwin]:
    """Yields results in the order of ``samples``, with a bounded number in flight."""
    running: deque[Future[FetchedTwin]] = deque()
    try:
        for sample in samples:
            running.append(pool.submit(work, sample))
            if len(running) >= 2 * _MAX_CONCURRENCY:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        for future in running:
            future.cancel()
