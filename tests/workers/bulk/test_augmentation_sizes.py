"""Sets of rectangles with instances: at the scale of their real items, and each object for itself up to the job."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from service.augmentations.rounds import Rounds
from service.augmentations.stored import reopen
from service.augmentations.work import AugmentationWork
from service.kit.png import encode_image
from service.store import ObjectStore
from tests.service.api.support import binary_card, register
from tests.workers.bulk.conftest import RecordingRunQueue, send
from tests.workers.bulk.test_augmentations import ask, execute_until_ended
from workers.bulk.execute import RunOutcome
from workers.bulk.worker import BulkWorker

SIZES = ((100, 72), (130, 90))


def coco_tar(items: int = 6) -> bytes:
    """A tar of a COCO dataset of rectangles, each with a pair of polyps that share a side, of 10 x 12 px each."""
    out, images, annotations = io.BytesIO(), [], []
    with tarfile.open(fileobj=out, mode="w") as tar:

        def put(name: str, data: bytes) -> None:
            info = tarfile.TarInfo(f"set/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))

        for number in range(items):
            width, height = SIZES[number % 2]
            put(f"images/{number}.png", encode_image(np.full((height, width, 3), 9 * number, dtype=np.uint8), {}))
            images.append({"id": number, "file_name": f"{number}.png", "width": width, "height": height})
            for left in (40, 50):
                box = [left, 30, 10, 12]
                ring = [left, 30, left + 10, 30, left + 10, 42, left, 42]
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number,
                        "category_id": 1,
                        "bbox": box,
                        "area": 120,
                        "segmentation": [ring],
                        "iscrowd": 0,
                    }
                )
        listed = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "polyp"}]}
        put("annotations.json", json.dumps(listed).encode())
    return out.getvalue()


@pytest.fixture
def polyps(
    client: TestClient, execute: Callable[[str], RunOutcome], run_queue: RecordingRunQueue, store: ObjectStore
) -> str:
    register(store, binary_card())
    found = send(client, coco_tar(), name="pairs")["id"]
    execute(run_queue.sent[-1])
    return str(found)


@pytest.mark.parametrize(
    ("fit", "members", "sizes"),
    [
        ({}, {"fit": "stretch"}, {(72, 72), (90, 90)}),
        ({"fit": "stretch"}, {"fit": "stretch"}, set(SIZES)),
        ({"fit": "canvas"}, {"fit": "canvas"}, set(SIZES)),
        ({"fit": "stretch", "size": "80x50"}, {"fit": "stretch", "size": "80x50"}, {(80, 50)}),
        ({"size": 64}, {"size": 64}, {(64, 64)}),
    ],
    ids=["as the model was trained", "stretch", "canvas", "a size", "the model's square"],
)
def test_twins_have_the_size_and_the_instances_of_their_items(
    client: TestClient,
    execute: Callable[[str], RunOutcome],
    worker: BulkWorker,
    polyps: str,
    fit: dict[str, Any],
    members: dict[str, Any],
    sizes: set[tuple[int, int]],
) -> None:
    body = {"dataset": "pairs", "model": "polyps", "count": 6, "seed": 2, "masks": {"real": 1.0}, **fit}
    run = ask(client, class_map={"background": "ground"}, **body)["id"]
    view = execute_until_ended(client, execute, worker, run)
    assert view["state"] == "succeeded"
    found = set()
    for job in Rounds(worker.store, run).jobs():
        spec = worker.repository.read_spec(job)
        request = {name: spec.request[name] for name in ("fit", "size") if name in spec.request}
        assert request == members
        assert spec.instances is not None
        for number in range(len(spec.mask or ())):
            mask, instances = (
                np.array(Image.open(io.BytesIO(worker.store.get(key))))
                for key in (spec.input_key(number), spec.instances_key(number))
            )
            found.add((mask.shape[1], mask.shape[0]))
            assert np.array_equal(instances > 0, mask == 1)
            assert len(np.unique(instances)) == 3  # two objects that touch, and nothing
            if "size" not in members:
                assert [int((instances == one).sum()) for one in (1, 2)] == [120, 120]
    assert found == sizes
    samples = client.get(view["links"]["samples"]).json()["samples"]
    scales = {tuple(sample["made_from"]["scale"]) for sample in samples}
    assert (scales == {(1.0, 1.0)}) == ("size" not in members)
    scale = view["plan"]["scale"]
    assert (scale["fit"], scale["size"]) == (members.get("fit", "crop") if fit else "crop", members.get("size"))
    warned = any("real items' scale" in note for note in view["plan"]["notes"])
    assert warned == (scale["twin_px_per_real_px"] != [1.0, 1.0])


def test_a_set_of_before_keeps_its_squares(client: TestClient, worker: BulkWorker, polyps: str) -> None:
    run = ask(client, dataset="pairs", model="polyps", count=2, seed=2, class_map={"background": "ground"})["id"]
    work = AugmentationWork.model_validate(worker.runs.read_spec(run).work)
    assert work.fit is not None
    assert work.fit.size is None
    before = work.model_copy(update={"fit": None, "sampling": work.sampling.model_copy(update={"size": 64})})
    again = reopen(before, worker.store, worker.catalogue, worker.settings)
    assert again.parameters.fit.job_members(mask=True) == {"size": 64}
