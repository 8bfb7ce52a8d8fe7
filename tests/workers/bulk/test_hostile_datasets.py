"""Hostile datasets: each ends its own import, in time and with the reason, and nothing else."""

from __future__ import annotations

import io
import json
import os
import tarfile
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from service.api.app import create_app
from service.settings import Settings
from service.store import ObjectStore
from tests.service.api.support import NotingQueue
from tests.waiting import until
from tests.workers.bulk.conftest import RecordingRunQueue, send
from workers.bulk.execute import RunOutcome, execute_run
from workers.bulk.handlers import handlers
from workers.bulk.worker import open_bulk_worker

LISTED = json.dumps({"classes": [{"index": 0, "name": "background"}, {"index": 1, "name": "thing"}]}).encode()


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def packed(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def pair(number: int = 0, side: int = 16) -> dict[str, bytes]:
    return {
        f"images/{number}.png": png(np.full((side, side, 3), number, dtype=np.uint8)),
        f"masks/{number}.png": png(np.ones((side, side), dtype=np.uint8)),
        "dataset.json": LISTED,
    }


Importer = Callable[..., dict[str, object]]


@pytest.fixture
def imported(
    settings: Settings, store: ObjectStore, run_queue: RecordingRunQueue, chunk_queue: NotingQueue
) -> Importer:
    """Sends a dataset and imports it under some settings; the answer about it afterwards, and the outcome."""

    def run(files: dict[str, bytes], **changes: object) -> dict[str, object]:
        changed = settings.model_copy(update=changes)
        app = create_app(changed, store=store, queue=chunk_queue, run_queue=run_queue)
        worker = open_bulk_worker(changed, store=store, queue=run_queue, chunks=chunk_queue)
        try:
            with TestClient(app) as client:
                name = f"set{len(run_queue.sent)}"
                sent = send(client, packed(files), name)
                assert execute_run(worker, run_queue.sent[-1], handlers()) is RunOutcome.ENDED
                found: dict[str, object] = client.get(sent["links"]["self"]).json()
                return found
        finally:
            worker.close()

    return run


def test_images_and_masks_have_a_number_of_pixels_in_all(imported: Importer) -> None:
    files = {**pair(1, 100), **pair(2, 100)}
    found = imported(files, max_dataset_pixels=39_999)
    assert found["state"] == "failed"
    assert "more than 39999 pixels in all (TWINSET_MAX_DATASET_PIXELS); divide the dataset" in str(found["reason"])
    assert imported(files, max_dataset_pixels=40_000)["state"] == "succeeded"


def test_json_that_needs_too_much_memory_ends_its_own_import(imported: Importer) -> None:
    body = b'{"images":[],"annotations":[],"categories":[],"x":[' + b"[]," * 4_000_000 + b"[]]}"
    found = imported({"annotations/instances_train.json": body, "x.bin": os.urandom(80_000)}, import_memory_bytes=2**29)
    assert found["state"] == "failed"
    assert "MB of memory to read; the limit is 256 MB, half of TWINSET_IMPORT_MEMORY_BYTES" in str(found["reason"])


def test_an_image_that_is_too_large_for_the_memory_is_named_and_the_others_are_read(imported: Importer) -> None:
    found = imported({**pair(1), **pair(2, 3000)}, import_memory_bytes=2**29)
    assert found["state"] == "succeeded"
    assert found["items"] == 1
    assert found["skipped"] == 1


def test_an_import_takes_only_so_long(imported: Importer) -> None:
    found = imported({f"images/{number}.png": b"x" for number in range(3)} | pair(), import_timeout_s=0)
    assert found["state"] == "failed"
    assert "takes more than 0 s (TWINSET_IMPORT_TIMEOUT_S); divide it" in str(found["reason"])


def test_long_metadata_and_captions_are_left_out_and_reported(imported: Importer) -> None:
    shard = packed(
        {
            "0.png": png(np.zeros((16, 16, 3), dtype=np.uint8)),
            "0.mask.png": png(np.ones((16, 16), dtype=np.uint8)),
            "0.json": json.dumps({"caption": "x" * 20_000, "metadata": {"a": [[]] * 9000}}).encode(),
        }
    )
    found = imported({"train-000000.tar": shard, "dataset.json": LISTED})
    assert found["state"] == "succeeded"
    assert found["items"] == 1


def test_a_cancel_ends_the_process_that_reads_the_dataset(
    settings: Settings, store: ObjectStore, run_queue: RecordingRunQueue, chunk_queue: NotingQueue
) -> None:
    app = create_app(settings, store=store, queue=chunk_queue, run_queue=run_queue)
    worker = open_bulk_worker(settings, store=store, queue=run_queue, chunks=chunk_queue)
    files = pair() | {f"images/{number}.png": png(np.full((2500, 2500, 3), number, np.uint8)) for number in range(24)}
    files |= {f"masks/{number}.png": png(np.ones((2500, 2500), np.uint8)) for number in range(24)}
    outcomes: list[RunOutcome] = []
    try:
        with TestClient(app) as client:
            sent = send(client, packed(files), "slow")
            run = run_queue.sent[-1]
            thread = threading.Thread(target=lambda: outcomes.append(execute_run(worker, run, handlers())))
            thread.start()
            until(lambda: client.get(sent["links"]["self"]).json()["state"] == "running")
            assert client.post(f"{sent['links']['self']}/cancel").status_code == 200
            start = time.monotonic()
            thread.join(20)
            assert time.monotonic() - start < 10
            assert outcomes == [RunOutcome.CANCELLED]
    finally:
        worker.close()
