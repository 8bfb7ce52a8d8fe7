"""Downloaded sets as PyTorch datasets: every pixel is that of the PNGs."""

from __future__ import annotations

import asyncio
import io
import json
import pickle
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

import service.client
import service.twinset
from service.client import AsyncTwinset, Export, Job, Twinset
from service.client.torch_dataset import TwinDataset
from service.datasets.items import DatasetItem
from service.errors import InvalidDataset, InvalidRequest
from tests.service.cli.conftest import LiveApi
from tests.service.client.both import BothClients
from tests.service.client.stub import API, Stub
from tests.service.client.test_exports import in_parts
from tests.service.datasets.scenes import (
    CLASSES_WITHOUT_BACKGROUND,
    SCENE_CLASSES,
    export,
    scene,
    scenes,
)

SPLITS = {"train": 0.5, "val": 0.5}


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def expected(items: list[DatasetItem]) -> dict[bytes, np.ndarray]:
    """The mask of each image, by the image's pixels: they belong together whatever a format names its files."""
    return {np.array(Image.open(io.BytesIO(item.image_bytes))).tobytes(): item.labels for item in items}


def as_pixels(image: torch.Tensor) -> np.ndarray:
    return (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


def test_a_loader_of_two_workers_gives_the_pixels_of_the_files(tmp_path: Path) -> None:
    same_size = [item for item in scenes(8) if item.labels.shape == scene(0).shape] * 3
    items = [
        DatasetItem(f"item {n}", np_picture(n, item.labels.shape), item.labels) for n, item in enumerate(same_size)
    ]
    folder = export(items, SCENE_CLASSES, tmp_path / "set", format="folders")
    dataset = TwinDataset(folder)
    names = [dataset.name(index) for index in range(len(dataset))]
    assert len(dataset) == 6
    assert dataset.classes == SCENE_CLASSES.names
    loader = DataLoader(dataset, batch_size=4, num_workers=2)
    images, masks = (torch.cat(parts) for parts in zip(*loader, strict=True))
    assert images.dtype == torch.float32
    assert masks.dtype == torch.int64
    assert images.shape == (6, 3, *scene(0).shape)
    assert masks.shape == (6, *scene(0).shape)
    for name, image, mask in zip(names, images, masks, strict=True):
        stored = pixels(folder / f"images/{name}.png")
        assert torch.equal(image, torch.from_numpy(stored.astype(np.float32) / 255).permute(2, 0, 1))
        assert np.array_equal(mask.numpy(), pixels(folder / f"masks/{name}.png"))


def np_picture(seed: int, shape: tuple[int, ...]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*shape, 3)).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize("form", ["folders", "webdataset", "coco", "voc", "cityscapes", "yolo"])
def test_every_format_gives_the_same_pairs(tmp_path: Path, form: str) -> None:
    # formats of objects leave the background without annotation, and most of them cannot express 255
    items = [DatasetItem(f"item {n}", np_picture(n, scene(0).shape), scene(0)) for n in range(6)]
    items += [DatasetItem(f"item {n}", np_picture(n, scene(2).shape), scene(2)) for n in range(6, 9)]
    folder = export(items, SCENE_CLASSES, tmp_path / form, format=form)
    dataset = pickle.loads(pickle.dumps(TwinDataset(folder)))
    found = {
        as_pixels(image).tobytes(): mask.numpy() for image, mask in (dataset[index] for index in range(len(dataset)))
    }
    wanted = expected(items)
    assert found.keys() == wanted.keys()
    assert len(found) == 9
    if form not in ("yolo", "cityscapes"):  # YOLO has no background, and Cityscapes numbers classes its own way
        assert dataset.classes == SCENE_CLASSES.names
    for image, labels in wanted.items():
        if form != "yolo":
            assert [dataset.classes[value] for value in found[image].flat if value != 255] == [
                SCENE_CLASSES.names[value] for value in labels.flat if value != 255
            ]


@pytest.mark.parametrize("form", ["folders", "webdataset"])
def test_masks_with_ignored_pixels_and_jpegs_and_splits(tmp_path: Path, form: str) -> None:
    items = list(scenes(12))
    folder = export(items, CLASSES_WITHOUT_BACKGROUND, tmp_path / form, format=form, splits=SPLITS, image_format="jpeg")
    whole = TwinDataset(folder)
    parts = {split: TwinDataset(folder, split=split) for split in SPLITS}
    assert whole.splits == ("train", "val")
    assert len(whole) == 12 == sum(map(len, parts.values()))
    assert all(parts.values())
    assert not {parts["train"].name(i) for i in range(len(parts["train"]))} & {
        parts["val"].name(i) for i in range(len(parts["val"]))
    }
    labels = {scene(number // 2).tobytes() for number in range(12)}
    assert {whole[index][1].numpy().astype(np.uint8).tobytes() for index in range(12)} == labels
    assert any((whole[index][1] == 255).any() for index in range(12))
    with pytest.raises(InvalidRequest, match=r"no split 'test'.*it has train, val"):
        TwinDataset(folder, split="test")
    assert "split 'val'" in repr(parts["val"])


def test_a_job_becomes_a_dataset(live_api: LiveApi, make_client: BothClients, tmp_path: Path) -> None:
    job = make_client(live_api.url).generate(model="aerial", classes=["water"], count=5, seed=3)
    dataset = job.torch_dataset(tmp_path / "twins", progress=False)
    assert isinstance(dataset, TwinDataset)
    assert len(dataset) == 5
    assert dataset.classes == ("building", "water", "vegetation", "unlabelled")
    for index in range(5):
        image, mask = dataset[index]
        assert np.array_equal(as_pixels(image), pixels(tmp_path / f"twins/images/{index:08d}.png"))
        assert torch.equal(mask, torch.ones(16, 16, dtype=torch.int64))
    with pytest.raises(InvalidRequest, match="it has none; export with splits"):
        TwinDataset(tmp_path / "twins", split="train")


def test_an_export_becomes_a_dataset(make_client: BothClients, tmp_path: Path) -> None:
    written = export(scenes(), SCENE_CLASSES, tmp_path / "written", format="folders", splits=SPLITS)
    stub = Stub(in_parts(written), format="folders", polls=1)
    one = make_client(API, transport=stub.transport()).get_export("e7ybr17pesw6kn47yb0")
    dataset = one.torch_dataset(
        tmp_path / "set", split="val", transform=lambda image, mask: (image.shape, int(mask.max()))
    )
    same = TwinDataset(written, split="val")
    assert len(dataset) == len(same) > 0
    assert [dataset[index] for index in range(len(dataset))] == [(image.shape, int(mask.max())) for image, mask in same]
    stub.format = "huggingface"
    with pytest.raises(InvalidRequest, match=r"datasets\.load_dataset"):
        one.refresh().torch_dataset(tmp_path / "other")


def test_a_dataset_can_be_made_from_a_run(live_api: LiveApi, tmp_path: Path) -> None:
    with Twinset(live_api.url) as client:
        job: Job = client.generate(model="aerial", classes=["water"], count=2)
        assert len(TwinDataset(job, tmp_path / "twins", progress=False)) == 2
        with pytest.raises(InvalidRequest, match="name a folder to download"):
            TwinDataset(job)
        with pytest.raises(InvalidRequest, match="leave out folder"):
            TwinDataset(tmp_path / "twins", tmp_path)
    stub = Stub(in_parts(export(scenes(), SCENE_CLASSES, tmp_path / "written", format="folders")), polls=0)
    with Twinset(API, transport=stub.transport()) as client:
        fetched: Export = client.get_export("e7ybr17pesw6kn47yb0")
        assert len(TwinDataset(fetched, tmp_path / "set")) == 8
        with pytest.raises(InvalidRequest, match="export it"):
            TwinDataset(client.augmentation("a7ybr17pesw6kn47yb0"), tmp_path / "x")

    async def use_async_client() -> None:
        async with AsyncTwinset(API, transport=stub.transport()) as client:
            with pytest.raises(InvalidRequest, match=r"await source\.torch_dataset"):
                TwinDataset(await client.get_export("e7ybr17pesw6kn47yb0"), tmp_path / "y")

    asyncio.run(use_async_client())


def test_an_incomplete_set_is_refused(live_api: LiveApi, tmp_path: Path) -> None:
    with Twinset(live_api.url) as client:
        client.generate(model="aerial", classes=["water"], count=3).download(tmp_path / "twins", progress=False)
    (tmp_path / "twins/masks/00000001.png").unlink()
    with pytest.raises(InvalidDataset, match=r"masks/00000001\.png is not in .*download the job again"):
        TwinDataset(tmp_path / "twins")
    folder = export(scenes(), SCENE_CLASSES, tmp_path / "set", format="folders")
    lost = next((folder / "images").iterdir())
    (folder / "masks" / f"{lost.stem}.png").unlink()
    lost.unlink()
    with pytest.raises(InvalidDataset, match="not there; download it again"):
        TwinDataset(folder)
    with pytest.raises(InvalidDataset, match="is not a folder"):
        TwinDataset(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidDataset, match="A dataset is one of"):
        TwinDataset(tmp_path / "empty")


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    folder = export(scenes(), SCENE_CLASSES, tmp_path / "set", format="folders")
    dataset = TwinDataset(folder)
    image, mask = (folder / f"{kind}/{dataset.name(0)}.png" for kind in ("images", "masks"))
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvalidDataset, match=r"the image of .*download the set again"):
        dataset[0]
    image.write_bytes(whole)
    Image.fromarray(pixels(mask)[:-1]).save(mask)
    with pytest.raises(InvalidDataset, match="and its mask"):
        dataset[0]
    Image.fromarray(np.full(scene(0).shape, 5, np.uint8)).save(mask)
    with pytest.raises(InvalidDataset, match="the mask holds 5; the classes are 0 to 4"):
        dataset[0]
    Image.fromarray(np.zeros((*scene(0).shape, 3), np.uint8)).save(mask)
    with pytest.raises(InvalidDataset, match="has mode RGB"):
        dataset[0]


def test_twins_without_masks_are_left_out_with_a_warning(live_api: LiveApi, tmp_path: Path) -> None:
    live_api.worker.with_masks = False
    with Twinset(live_api.url) as client:
        job = client.generate(model="tissue", prompt="glands", count=2)
        with (
            pytest.warns(UserWarning, match=r"2 items of .* are left out"),
            pytest.raises(InvalidRequest, match="no pair"),
        ):
            job.torch_dataset(tmp_path / "twins", progress=False)
    live_api.worker.with_masks = True
    with Twinset(live_api.url) as client:
        client.generate(model="aerial", prompt="water", count=2).download(tmp_path / "mixed", progress=False)
    lines = (tmp_path / "mixed/manifest.jsonl").read_text().splitlines()
    lines[0] = json.dumps({**json.loads(lines[0]), "mask": None})
    (tmp_path / "mixed/manifest.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.warns(UserWarning, match="1 items"):
        dataset = TwinDataset(tmp_path / "mixed")
    assert [dataset.name(index) for index in range(len(dataset))] == ["00000001"]


def test_a_dataset_of_your_own_is_read_too(tmp_path: Path) -> None:
    for kind in ("images", "masks"):
        (tmp_path / "own" / kind).mkdir(parents=True)
    (tmp_path / "own/classes.txt").write_text("ground\nobject\n")
    for number in range(2):
        (tmp_path / f"own/images/{number}.png").write_bytes(np_picture(number, (8, 8)))
        Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(tmp_path / f"own/masks/{number}_mask.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset: Any = TwinDataset(tmp_path / "own")
    assert dataset.classes == ("ground", "object")
    assert torch.equal(dataset[1][1], torch.eye(8, dtype=torch.int64))


def test_the_example_of_the_documentation_works(
    live_api: LiveApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = (service.client.__doc__ or "").splitlines()
    start = next(number for number, line in enumerate(lines) if "import Twinset" in line)
    example = []
    for line in lines[start:]:
        if line and not line.startswith("    "):
            break
        example.append(line[4:])
    monkeypatch.setenv("TWINSET_PUBLIC_URL", live_api.url)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "twinset", service.twinset)
    names: dict[str, object] = {}
    exec("\n".join(example).replace("count=100", "count=3"), names)
    assert isinstance(names["client"], Twinset)
    assert len(names["dataset"]) == 3
