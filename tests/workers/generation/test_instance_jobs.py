"""Jobs over masks with instances: the model sees their edges, and they are stored, made again and exported with it."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from redis import Redis

from model_store.card import ModelCard
from model_store.interface import ConditionRequest, MaskInput
from model_store.masks.resize import majority_resize, resize_instances
from service.datasets.reading.opening import open_dataset
from service.datasets.reading.report import Findings
from service.exports.job_source import JobSource
from service.jobs.sample_files import read_sample_file, sample_files_of
from service.jobs.spec import JobSpec
from service.kit.png import encode_grey_16, encode_mask
from service.kit.states import JobState
from service.masks.types import GivenInstances, GivenMask
from service.store.folder import FolderStore
from tests.model_store.latent.tiny import SIZE_PX, tiny_system
from tests.service.datasets.scenes import export
from tests.stored_twins import manifest_lines
from tests.workers.conftest import Hire
from tests.workers.fakes import Post, tiny_spec
from tests.workers.generation.test_chunk import work
from tests.workers.generation.test_mask_jobs import FILES, card
from tests.workers.maintenance.test_repairer import repair
from workers.generation.drawing import Drawing
from workers.generation.inputs import InputDamaged, JobInputs
from workers.generation.worker import Worker
from workers.tools.verify import Stored, draw, verify

__all__ = ["card"]

LABELS = np.zeros((SIZE_PX, SIZE_PX), dtype=np.uint8)
LABELS[4:-4, 2:-2] = 1
NUMBERS = np.zeros(LABELS.shape, dtype=np.int32)
NUMBERS[4:-4, 2 : SIZE_PX // 2], NUMBERS[4:-4, SIZE_PX // 2 : -2] = 3, 65_535
"""Two objects that touch."""


@pytest.fixture
def worker(hire: Hire, redis: Redis) -> Worker:
    return hire(load=lambda folder: tiny_system("pathdiff", files=FILES))


def accept(
    worker: Worker, post: Post, card: ModelCard, numbers: np.ndarray | None = NUMBERS, **changes: Any
) -> JobSpec:
    """A job over the mask, its first twins with ``numbers``."""
    mask = encode_mask(LABELS, [entry.colour for entry in card.classes], {})
    given = GivenMask(upload="0" * 64, sha256=hashlib.sha256(mask).hexdigest())
    values: dict[str, Any] = {"classes": None, "mask": (given,), "size": SIZE_PX, "guidance_scale": 1.5}
    files = [mask]
    if numbers is not None:
        files.append(encode_grey_16(numbers))
        values["instances"] = (GivenInstances(upload="1" * 64, sha256=hashlib.sha256(files[1]).hexdigest()),)
    spec = tiny_spec(card, **{**values, "format": 4, "count": 2, "guidance_target": "text", **changes})
    for place, data in zip(spec.given_files, files, strict=True):
        worker.repository.store.put(place.key, data)
    worker.repository.write_spec(spec)
    post.send_chunk(spec.job, 0)
    work(worker, post)
    assert worker.repository.read_summary(spec.job).state is JobState.SUCCEEDED  # type: ignore[union-attr]
    return spec


def files_of(store: FolderStore, worker: Worker, spec: JobSpec) -> list[dict[str, bytes]]:
    return [
        {file.kind: read_sample_file(store, file) for file in sample_files_of(item)}
        for _, item in worker.repository.chunks.items(spec)
    ]


@pytest.mark.parametrize("layout", ["objects", "shards"])
def test_every_twin_has_the_instances_of_its_mask_and_the_manifest_says_so(
    worker: Worker, post: Post, store: FolderStore, card: ModelCard, layout: str
) -> None:
    spec = accept(worker, post, card, layout=layout)
    for files in files_of(store, worker, spec):
        assert list(files) == ["image", "mask", "instances"]
        with Image.open(io.BytesIO(files["instances"])) as image:
            assert np.array_equal(np.asarray(image), NUMBERS)
            about = json.loads(image.text["twinset"])
        assert about["instances_sha256"] == spec.instances[0].sha256  # type: ignore[union-attr,index]
    lines = [json.loads(line) for line in manifest_lines(store, spec.job)]
    for line, files in zip(lines, files_of(store, worker, spec), strict=True):
        assert line["objects"] == "instances"
        assert line["instances"]["sha256"] == hashlib.sha256(files["instances"]).hexdigest()
        assert line["given_mask"]["instances"]["upload"] == "1" * 64
    [record] = worker.repository.chunks.iterate(spec.job)
    sizes = sum(len(data) for files in files_of(store, worker, spec) for data in files.values())
    assert record.bytes == sizes if layout == "objects" else record.bytes > sizes


def test_a_model_of_edges_draws_another_image_and_without_a_map_objects_are_regions(
    worker: Worker, post: Post, store: FolderStore, card: ModelCard
) -> None:
    with_map, without = accept(worker, post, card), accept(worker, post, card, None)
    one = accept(worker, post, card, np.where(LABELS > 0, 1, 0).astype(np.int32))
    images = [files_of(store, worker, spec)[0]["image"] for spec in (with_map, without, one)]
    pixels = [np.asarray(Image.open(io.BytesIO(data))) for data in images]
    assert not np.array_equal(pixels[0], pixels[1]), "the edge between the two is seen"
    assert np.array_equal(pixels[1], pixels[2]), "one object has the edges of its class"
    [line, _] = [json.loads(line) for line in manifest_lines(store, without.job)]
    assert (line["objects"], "instances" in line) == ("connected regions", False)


def test_touching_objects_stay_apart_in_the_archive_and_in_coco(
    worker: Worker, post: Post, store: FolderStore, card: ModelCard, tmp_path: Path
) -> None:
    spec = accept(worker, post, card)
    folder = tmp_path / "twins"
    for index, files in enumerate(files_of(store, worker, spec)):
        for kind, data in files.items():
            place = folder / {"image": "images", "mask": "masks"}.get(kind, kind) / f"{index:08d}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
    (folder / "manifest.jsonl").write_bytes(b"\n".join(manifest_lines(store, spec.job)))
    (folder / "card.json").write_text(card.model_dump_json())
    entries = list(open_dataset(folder).entries(Findings()))
    read = entries[0].annotate(SIZE_PX, SIZE_PX)
    assert read.instances is not None
    assert np.array_equal(read.instances, NUMBERS)

    source = JobSource(worker.repository, spec, card)
    items = [item for _, item in source.items()]
    assert all(np.array_equal(item.instances, NUMBERS) for item in items)  # type: ignore[union-attr]
    export(items, source.classes, tmp_path / "coco", format="coco")  # type: ignore[arg-type]
    [file] = (tmp_path / "coco" / "annotations").glob("*.json")
    coco = COCO(str(file))
    masks = [coco.annToMask(one) for one in coco.loadAnns(coco.getAnnIds(imgIds=coco.getImgIds()[:1]))]
    assert sorted(int(mask.sum()) for mask in masks) == sorted(int((number == NUMBERS).sum()) for number in (3, 65_535))


@pytest.mark.parametrize("layout", ["objects", "shards"])
def test_a_lost_instance_map_is_repaired_with_its_twin(
    worker: Worker, post: Post, store: FolderStore, card: ModelCard, layout: str
) -> None:
    spec = accept(worker, post, card, layout=layout)
    before = {info.key: store.get(info.key) for info in store.list(f"jobs/{spec.job}/")}
    [_, item] = next(worker.repository.chunks.items(spec))
    if layout == "objects":
        assert item.instances_key is not None
        store.delete(item.instances_key)
    else:
        data = bytearray(store.get(item.image_key or ""))
        data[(item.instances_offset or 0) + 60] ^= 1
        store.put(item.image_key or "", bytes(data))
    load = lambda folder: tiny_system("pathdiff", files=FILES)  # noqa: E731
    done = repair(worker, spec, load)
    assert (done.checked, done.restored, done.replaced, done.failed) == (2, 1, 0, 0)
    assert {key: store.get(key) for key in before} == before
    for finding in verify(draw(worker.repository, spec, 2, 0), store, worker.settings, load=load):
        assert [(file.kind, file.stored, file.remade) for file in finding.files] == [
            (kind, Stored.AS_RECORDED, True) for kind in ("image", "mask", "instances")
        ]


def test_a_damaged_instance_map_of_a_job_gives_no_twin(
    worker: Worker, post: Post, store: FolderStore, card: ModelCard
) -> None:
    spec = accept(worker, post, card)
    store.put(spec.instances_key(0), encode_grey_16(NUMBERS + 1 - (NUMBERS == 65_535)))
    with pytest.raises(InputDamaged, match=f"{spec.instances_key(0)} in the object store is damaged"):
        JobInputs(store).request(spec, 0)


def test_objects_in_windows_and_in_a_stretched_square_are_those_of_the_mask(card: ModelCard) -> None:
    labels = np.tile(LABELS, (1, 2))
    numbers = np.where(labels > 0, np.arange(labels.shape[1])[None] // 5 + 1, 0).astype(np.int32)
    request = ConditionRequest(mask=MaskInput.of(labels, numbers))
    system = tiny_system("pathdiff", files=FILES)
    seen: list[MaskInput] = []

    class Noting:
        card = system.card

        def guidance_inputs(self, part: ConditionRequest) -> None:
            assert part.mask is not None
            seen.append(part.mask)

    spec = tiny_spec(card, classes=None, prompt="x", size=f"{labels.shape[1]}x{SIZE_PX}", fit="canvas", format=4,
                     canvas={"window_px": SIZE_PX, "overlap_px": SIZE_PX // 2, "weights": "smooth"})  # fmt: skip
    drawing = Drawing.of(spec, 0, request, system)
    drawing.guidance_inputs(Noting())  # type: ignore[arg-type]
    assert len(seen) == 3
    for number, part in enumerate(seen):
        left = number * SIZE_PX // 2
        assert np.array_equal(part.instances, numbers[:, left : left + SIZE_PX])
    seen.clear()
    stretched = tiny_spec(card, classes=None, prompt="x", size=f"{labels.shape[1]}x{SIZE_PX}", fit="stretch", format=4)
    Drawing.of(stretched, 0, request, system).guidance_inputs(Noting())  # type: ignore[arg-type]
    square = majority_resize(labels, SIZE_PX)
    assert np.array_equal(seen[0].instances, resize_instances(numbers, labels, square))
