"""Tests of ``twinset augment``, ``export`` and ``datasets`` against a server, through the Python client."""

from __future__ import annotations

import io
import json
import socket
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from PIL import Image

from service.api.app import create_app
from service.augmentations.rounds import Rounds
from service.cli.root import run
from service.client import Twinset
from service.settings import Settings
from service.store import ObjectStore, open_store
from tests.service.api.support import NotingQueue, mask_card, register
from tests.workers.bulk.conftest import RecordingRunQueue, dataset_tar
from tests.workers.bulk.test_augmentations import paint
from tests.workers.bulk.test_exports import NAMES
from workers.bulk.execute import execute_run
from workers.bulk.handlers import handlers
from workers.bulk.worker import BulkWorker


@dataclass
class Painter:
    """Thread that executes runs and makes the jobs of augmentation sets."""

    worker: BulkWorker
    runs: RecordingRunQueue
    stop: threading.Event = field(default_factory=threading.Event)

    def work(self) -> None:
        kinds = handlers()
        while not self.stop.wait(0.05):
            for each in list(self.worker.runs.open_runs()):
                execute_run(self.worker, each, kinds)
                for job in Rounds(self.worker.store, each).jobs():
                    if self.worker.repository.read_summary(job) is None:
                        paint(self.worker.repository, self.worker.repository.read_spec(job))


@pytest.fixture
def url(
    settings: Settings,
    store: ObjectStore,
    worker: BulkWorker,
    run_queue: RecordingRunQueue,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[str]:
    """URL of a server with a dataset's model and a painter; it is the commands' default server."""
    register(store, mask_card())
    listener = socket.create_server(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    settings = settings.model_copy(update={"public_url": address})
    app = create_app(settings, store=open_store(settings), queue=NotingQueue(), run_queue=run_queue)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    painter = Painter(worker, run_queue)
    threads = [
        threading.Thread(target=server.run, kwargs={"sockets": [listener]}),
        threading.Thread(target=painter.work),
    ]
    for thread in threads:
        thread.start()
    while not server.started:
        time.sleep(0.01)
    monkeypatch.setenv("TWINSET_PUBLIC_URL", address)
    yield address
    painter.stop.set()
    server.should_exit = True
    for thread in threads:
        thread.join()


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """A dataset in a folder."""
    with tarfile.open(fileobj=io.BytesIO(dataset_tar(8, names=NAMES))) as tar:
        tar.extractall(tmp_path, filter="data")
    return tmp_path / "set"


Said = Callable[[], str]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    def both() -> str:
        captured = capsys.readouterr()
        return captured.out + captured.err

    return both


def test_a_dataset_is_pushed_listed_shown_and_deleted(url: str, scenes: Path, said: Said) -> None:
    assert run(["datasets", "push", "scenes", str(scenes)]) == 0
    assert "scenes@1" in said()
    assert run(["datasets", "list"]) == 0
    assert "scenes@1" in said()
    (scenes / "images" / "scene3.png").write_bytes(b"no picture")
    assert run(["datasets", "push", "scenes", str(scenes)]) == 1
    told = said()
    assert "scenes@2" in told
    assert "7 pairs" in told
    assert "images/scene3.png" in told
    assert run(["datasets", "show", "scenes@1"]) == 0
    assert "8 pairs" in said()
    assert run(["datasets", "delete", "scenes"]) == 2
    assert run(["datasets", "delete", "scenes@2"]) == 0
    assert run(["datasets", "show", "scenes@2"]) == 1
    assert "does not exist" in said()


def test_a_folder_is_extended_with_twins(url: str, scenes: Path, said: Said, tmp_path: Path) -> None:
    target, plan = tmp_path / "more", tmp_path / "plan.png"
    words = ["augment", str(scenes), "--model", "tissue", "--ratio", "1.5", "--balance", "even", "--seed", "4"]
    assert (
        run([*words, "--out", str(target), "--format", "voc", "--chart", str(plan), "--split", "train=0.7,val=0.3"])
        == 0
    )
    told = said()
    assert "12 twins after 8 real items" in told
    assert "12 of 12 twins accepted" in told
    assert Image.open(plan).width > 300
    lines = [json.loads(line) for line in (target / "manifest.jsonl").read_text().splitlines()]
    assert [line["source"] for line in lines].count("synthetic") == 12
    assert len(lines) == 20
    for line in lines:
        mask = np.array(Image.open(target / line["mask"]["path"]))
        assert (mask < 4).all()
        assert mask.shape == (line["height"], line["width"])
    assert run(["datasets", "check", str(target)]) == 0
    # a set that is there is never written over
    assert run([*words, "--out", str(target)]) == 2


def test_a_dry_run_makes_nothing(url: str, scenes: Path, said: Said, tmp_path: Path) -> None:
    asked = tmp_path / "request.json"
    asked.write_text('{"masks": {"real": 1}, "model": "nobody", "dry_run": false}')
    assert run(["augment", str(scenes), "--model", "tissue", "--count", "3", "--dry-run", "--request", str(asked)]) == 0
    assert "3 twins" in said()
    with Twinset(url) as client:
        assert list(client.augmentations()) == []
        assert list(client.jobs()) == []


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--model", "tissue", "--count", "3"], 2, "give --out"),
        (
            ["--model", "tissue", "--count", "3", "--dry-run", "--balance", "water"],
            2,
            "is not even, inverse, or shares",
        ),
        (["--model", "tissue", "--dry-run"], 1, "neither is given"),
        (["--model", "nobody", "--count", "3", "--dry-run"], 1, "nobody"),
        (["--model", "tissue", "--count", "3", "--dry-run", "--transforms", "wobble"], 1, "wobble"),
        (
            ["--model", "tissue", "--count", "3", "--dry-run", "--balance", "water=0.2,water=0.3"],
            2,
            "names 'water' twice",
        ),
        (["--model", "tissue", "--count", "3", "--out", "set.zip"], 2, "downloaded into a folder"),
        (["--model", "tissue", "--ratio", "nan", "--dry-run"], 2, "'nan' is not a finite number"),
    ],
)
def test_wrong_usage_is_refused(words: list[str], code: int, says: str, url: str, scenes: Path, said: Said) -> None:
    assert run(["augment", str(scenes), *words]) == code
    assert says in said()


def test_sources_on_a_server_are_exported_by_the_server(url: str, scenes: Path, said: Said, tmp_path: Path) -> None:
    with Twinset(url) as client:
        dataset = client.upload_dataset("scenes", scenes, wait=True, progress=False)
        made = client.augment(dataset=dataset, model="tissue", count=6, seed=1, wait=True, progress=False)
        assert {sample.made_from["dataset"] for sample in made.samples()} == {"scenes@1"}  # type: ignore[attr-defined]
        export = made.export(format="folders", splits={"train": 0.5, "val": 0.5})
        pairs = export.wait(progress=False).torch_dataset(tmp_path / "fetched", progress=False)
        assert len(pairs) == 14
        image, mask = pairs[0]
        assert tuple(image.shape[-2:]) == tuple(mask.shape)
        assert image.max() <= 1
    out = tmp_path / "coco"
    assert (
        run(["export", "scenes@1", made.id, "--format", "coco", "--out", str(out), "--split", "train=0.5,val=0.5"]) == 0
    )
    assert "14 pairs as coco: 6 synthetic, 8 real" in said()
    counts = [len(json.loads(file.read_text())["images"]) for file in sorted((out / "annotations").iterdir())]
    assert sum(counts) == 14
    assert run(["export", "scenes@1", str(scenes), "--format", "coco", "--out", str(tmp_path / "x")]) == 2
    assert "sources must be all here, or all on a server" in said()
    assert run(["export", "no/such", "--format", "coco", "--out", str(tmp_path / "x")]) == 2
    assert "not a source on a server" in said()
    assert run(["export", "nothing@1", "--format", "coco", "--out", str(tmp_path / "x")]) == 1
    assert "does not exist" in said()


def test_url_and_data_dir_cannot_be_combined(url: str, scenes: Path, said: Said, tmp_path: Path) -> None:
    words = [
        "augment",
        str(scenes),
        "--model",
        "tissue",
        "--count",
        "2",
        "--dry-run",
        "--url",
        url,
        "--data-dir",
        str(tmp_path / "mine"),
    ]
    assert run(words) == 2
    assert "give only one of them" in said()
    assert not (tmp_path / "mine").exists()
