"""Every format that is read is trained on, and so are archives and datasets of the store."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from accelerate import Accelerator
from click.testing import CliRunner

from model_store.cosimgen.config import CoSimGenConfig
from service.datasets.classes import ClassList
from service.datasets.items import DatasetItem
from service.datasets.reading.levels import Levels
from service.datasets.reading.opening import open_dataset
from service.datasets.reading.report import Findings
from service.datasets.stored import layout
from service.datasets.stored.importing import describe, write_items
from service.kit.run_kinds import RunKind, new_run_id
from service.kit.states import JobState
from service.runs.dataset_versions import Datasets, DatasetWork
from service.runs.repository import RunRepository
from service.runs.spec import RunSpec
from service.settings import Settings
from service.store.immutable import put_attempt, put_once
from service.store.opening import open_store
from tests.service.cli.twin_folders import twin_folder
from tests.service.datasets.scenes import export, noise
from tests.service.datasets.test_datumaro import dataset as datumaro_dataset
from tests.service.datasets.test_datumaro import item as datumaro_item
from tests.service.datasets.test_datumaro import mask as datumaro_mask
from tests.workers.training.toy import letters
from workers.data.listings import DatasetInvalid
from workers.data.training_set import TrainingSet
from workers.training.cosimgen import CoSimGenTrainer
from workers.training.cosimgen_command import cosimgen
from workers.training.cosimgen_settings import CoSimGenTraining

CLASSES = ClassList.of(["background", "pond", "roof"])
WRITTEN = ("folders", "coco", "voc", "cityscapes", "yolo", "huggingface", "webdataset")


def items(count: int = 8) -> Iterator[DatasetItem]:
    for number in range(count):
        labels = np.zeros((20 + number, 30), dtype=np.uint8)
        labels[2:10, 8:16] = 1
        labels[12:18, 14 : 20 + number % 3] = 2
        split = "test" if number >= 6 else "train"
        caption = f"number {number}"
        yield DatasetItem(f"n{number}", noise(number, *labels.shape), labels, split=split, caption=caption)


def trained(data: TrainingSet, out: Path) -> CoSimGenTrainer:
    network = CoSimGenConfig(
        num_classes=len(data.classes),
        size_px=16,
        width=16,
        multipliers=(1, 2),
        blocks_per_level=1,
        embedding_dims=32,
        class_feature_dims=16,
        stem=2,
    )
    settings = CoSimGenTraining(preset="small", iterations=2, batch_size=4, network=network, discriminator_width=8)
    run = CoSimGenTrainer(data, out, settings, Accelerator(cpu=True, mixed_precision="no"), encode=letters)
    assert run.run(checkpoint_every=2, sample_every=9, log_every=1) == 2
    return run


@pytest.mark.parametrize("format", WRITTEN)
def test_a_dataset_of_every_format_trains(format: str, tmp_path: Path) -> None:
    folder = export(items(), CLASSES, tmp_path / "data", format=format)
    data = TrainingSet.open(folder)
    assert [entry.name for entry in data.classes if entry.queryable] == ["pond", "roof"]
    assert (len(data.stems("train")), len(data.stems("test"))) == (6, 2)
    assert data.dataset.about.read_as == format
    trained(data, tmp_path / "run")


def test_datumaro_and_twins_train(tmp_path: Path) -> None:
    square = np.zeros((10, 12), dtype=np.uint8)
    square[2:8, 2:9] = 1
    made = [datumaro_item(f"n{number}", datumaro_mask(square)) for number in range(3)]
    data = TrainingSet.open(datumaro_dataset(tmp_path / "datumaro", *made, split="train"))
    assert len(data.stems("train")) == 3
    trained(data, tmp_path / "run")
    twins = TrainingSet.open(twin_folder(tmp_path / "twins", count=6))
    assert (twins.dataset.about.read_as, len(twins.stems("train"))) == ("twins", 6)
    trained(twins, tmp_path / "of-twins")


@pytest.mark.parametrize(("kind", "suffix"), [("zip", ".zip"), ("tar", ".tar"), ("gztar", ".tar.gz")])
def test_an_archive_is_the_same_dataset_as_its_folder(kind: str, suffix: str, tmp_path: Path) -> None:
    folder = export(items(), CLASSES, tmp_path / "data", format="folders")
    shutil.make_archive(str(tmp_path / "data"), kind, tmp_path, "data")
    data, packed = TrainingSet.open(folder), TrainingSet.open(tmp_path / f"data{suffix}")
    assert (packed.name, packed.plain_name) == (data.name, "data")
    assert packed.stems("train") == data.stems("train")
    assert packed.texts(packed.stems("train")) == data.texts(data.stems("train"))
    for one, other in zip(data.arrays("train", 16), packed.arrays("train", 16), strict=True):
        assert np.array_equal(one, other)


def test_a_dataset_of_the_store_trains_by_its_name_and_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWINSET_DATA_DIR", str(tmp_path / "server"))
    store = open_store(Settings())
    folder = export(items(), CLASSES, tmp_path / "data", format="coco")
    repository, run = RunRepository(store), new_run_id(RunKind.DATASET)
    version = Datasets(repository, "default").take_version("ponds", run)
    work = DatasetWork(name="ponds", version=version)
    spec = RunSpec(run=run, created_at=datetime.now(UTC), work=work.model_dump(mode="json"))
    assert repository.write_spec(spec)
    source, findings = open_dataset(folder), Findings()
    shards = write_items(source, findings, store, run, tmp_path, {}, on_item=lambda number, item: None)
    about = describe(source, findings, shards, name="ponds", version=version)
    report = put_attempt(store, layout.report(run), findings.report("coco").model_dump_json().encode())
    about = about.model_copy(update={"objects": {"report": report}})
    assert put_once(store, layout.about(run), about.model_dump_json().encode())
    repository.end(spec, JobState.SUCCEEDED)
    stored, local = TrainingSet.open("ponds@1"), TrainingSet.open(folder)
    assert stored.plain_name == "ponds"
    for one, other in zip(stored.arrays("train", 16), local.arrays("train", 16), strict=True):
        assert np.array_equal(one, other)
    trained(stored, tmp_path / "run")
    with pytest.raises(DatasetInvalid, match=r"pondz@1 is no file or folder, and in the store .*did you mean 'ponds'"):
        TrainingSet.open("pondz@1")
    with pytest.raises(DatasetInvalid, match=r"pushed to the store, so --window 0,4095 comes too late"):
        TrainingSet.open("ponds@1", window=Levels(0, 4095))
    with pytest.raises(DatasetInvalid, match=r"A/b does not exist; a dataset is a folder, a zip or tar of one"):
        TrainingSet.open("A/b")


def test_a_second_training_starts_from_the_prepared_copy_and_an_edit_makes_another(tmp_path: Path) -> None:
    folder = export(items(), CLASSES, tmp_path / "data", format="folders")
    first = TrainingSet.open(folder)
    assert TrainingSet.open(folder).dataset.run == first.dataset.run
    about = json.loads((folder / "dataset.json").read_text())
    about["classes"][1] |= {"aliases": ["lake"], "queryable": False}
    (folder / "dataset.json").write_text(json.dumps(about | {"has_up": False, "metres_per_px": 0.3}))
    second = TrainingSet.open(folder)
    assert second.dataset.run != first.dataset.run
    assert (second.has_up, second.metres_per_px) == (False, 0.3)
    assert (second.classes[1].aliases, second.classes[1].queryable) == (("lake",), False)


def test_the_command_trains_tiles_of_an_archive_and_the_card_says_so(tmp_path: Path) -> None:
    export(items(), CLASSES, tmp_path / "data", format="voc")
    archive = shutil.make_archive(str(tmp_path / "ponds"), "zip", tmp_path, "data")
    options = ["--data", archive, "--out", str(tmp_path / "run"), "--cpu", "--precision", "no", "--iterations", "1"]
    large = CliRunner().invoke(cosimgen, [*options, "--fit", "tiles", "--tile-px", "64"])
    assert large.exit_code == 1
    assert "tiles of 64 px are larger than 'n0', which is 30 x 20 px; give a --tile-px of at most 20" in large.output
    mixed = CliRunner().invoke(cosimgen, [*options, "--tile-px", "16"])
    assert "give --fit tiles with them" in mixed.output
    seen = CliRunner().invoke(cosimgen, [*options, "--fit", "tiles", "--tile-px", "16", "--seen", "lake=0.5"])
    assert "--seen lake: no such class; there are background, pond, roof" in seen.output
