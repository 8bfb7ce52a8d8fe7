"""``twinset train --url``: a training is sent to a server, on its dataset or an uploaded one, and followed."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from starlette.testclient import TestClient

from service.kit.states import JobState
from service.runs.repository import RunRepository
from service.runs.spec import RunSummary
from service.store import ObjectStore, run_keys
from service.trainings.records import StageRecord, TrainingRecords
from service.trainings.work import TrainingWork
from tests.workers.bulk.conftest import RecordingRunQueue, dataset_tar
from workers.bulk.execute import RunOutcome
from workers.cli import train

Stored = Callable[..., str]


class EndingRunQueue(RecordingRunQueue):
    """Fake run queue whose trainings end at once, with a model, as if a worker had taken them."""

    def __init__(self, store: ObjectStore) -> None:
        super().__init__()
        self.store = store
        self.execute: Callable[[str], RunOutcome] | None = None

    def send_run(self, run: str, tenant: str = "default") -> None:
        super().send_run(run, tenant)
        if run.startswith("d"):
            if self.execute is not None:
                self.execute(run)
            return
        work = TrainingWork.model_validate(RunRepository(self.store).read_spec(run).work)
        at = datetime.now(UTC)
        for number, stage in enumerate(work.stages):
            is_last = stage is work.last
            TrainingRecords(self.store, run).write_stage(
                StageRecord(
                    run=run,
                    stage=number,
                    iterations=5,
                    seconds=2.0,
                    device_seconds=2.0,
                    at=at,
                    model=f"{work.model}@1.0.0" if is_last and work.model else None,
                )
            )
        summary = RunSummary(run=run, state=JobState.SUCCEEDED, done=5, total=5, finished_at=at, seconds=3.0)
        self.store.put(run_keys.run_summary(run), summary.model_dump_json().encode())


@pytest.fixture
def run_queue(store: ObjectStore) -> EndingRunQueue:
    return EndingRunQueue(store)


def invoke(url: str, *arguments: object) -> Result:
    return CliRunner().invoke(train, [*map(str, arguments), "--url", url])


def requests(client: TestClient) -> list[dict[str, Any]]:
    return [entry["request"] for entry in client.get("/trainings").json()["trainings"]]


def test_a_training_is_sent_with_what_was_given_and_followed_to_its_end(
    url: str, client: TestClient, stored: Stored, tmp_path: Path
) -> None:
    stored()
    config = tmp_path / "training.yaml"
    config.write_text("{data: scenes@1, out: runs/mine, iterations: 9, seed: 4, aliases: {house: [houses, hut]}}")
    options = ("--config", config, "--batch-size", 4, "--preset", "toy", "--fit", "stretch", "--no-up")
    result = invoke(url, "cosimgen", *options, "--name", "mine", "--hours", 0.5)
    assert result.exit_code == 0, result.output
    assert requests(client) == [
        {
            "system": "cosimgen",
            "dataset": "scenes@1",
            "name": "mine",
            "preset": "toy",
            "fit": "stretch",
            "seed": 4,
            "settings": {
                "iterations": 9,
                "batch_size": 4,
                "aliases": {"house": ["houses", "hut"]},
                "has_up": False,
            },
            "budget": {"hours": 0.5},
        }
    ]
    assert "succeeded" in result.output
    assert "mine@1.0.0" in result.output


def test_a_folder_is_uploaded_first_and_parts_are_trained_first(
    url: str, client: TestClient, execute: Any, run_queue: EndingRunQueue, tmp_path: Path
) -> None:
    run_queue.execute = execute
    with tarfile.open(fileobj=io.BytesIO(dataset_tar(6))) as tar:
        tar.extractall(tmp_path, filter="data")
    (tmp_path / "set").rename(tmp_path / "My Tiles")
    parts = ("--part", "autoencoder.size_px=16", "--part", "base.size_px=16", "--part", "base.iterations=4")
    result = invoke(url, "siamese", "--data", tmp_path / "My Tiles", "--size", 16, *parts, "--detach")
    assert result.exit_code == 0, result.output
    (request,) = requests(client)
    assert (request["system"], request["dataset"]) == ("siamese-diffusion", "my-tiles@1")
    assert request["parts"] == {"autoencoder": {"size_px": 16}, "base": {"size_px": 16, "iterations": 4}}
    assert request["settings"] == {"size_px": 16}
    (one,) = client.get("/trainings").json()["trainings"]
    assert [stage["system"] for stage in one["stages"]] == ["autoencoder", "base", "siamese-diffusion"]
    assert f"twinset trainings follow {one['id']}" in result.output
    assert "succeeded" not in result.output


def test_parts_of_a_file_and_of_other_trainings(url: str, client: TestClient, stored: Stored, tmp_path: Path) -> None:
    stored("texts", captions=12)
    stored("masks", names=("ground", "cell", "gland"))
    config = tmp_path / "training.yaml"
    config.write_text("{text_data: texts, mask_data: masks, parts: {base: {iterations: 4, size_px: 16}}}")
    assert invoke(url, "pathdiff", "--config", config, "--detach").exit_code == 0
    assert requests(client)[0] == {
        "system": "pathdiff",
        "text_dataset": "texts",
        "mask_dataset": "masks",
        "settings": {},
        "parts": {"base": {"iterations": 4, "size_px": 16}},
    }
    assert invoke(url, "autoencoder", "--data", "texts", "--size", 16).exit_code == 0
    (part, _) = client.get("/trainings").json()["trainings"]
    result = invoke(url, "base", "--data", "texts", "--autoencoder", f"training/{part['id']}", "--detach")
    assert result.exit_code == 0, result.output
    assert requests(client)[0]["autoencoder"] == f"training/{part['id']}"


def test_a_dry_run_prints_the_plan_and_trains_nothing(url: str, client: TestClient, stored: Stored) -> None:
    stored()
    result = invoke(url, "cosimgen", "--data", "scenes", "--dry-run")
    assert result.exit_code == 0, result.output
    lines = [" ".join(line.split()) for line in result.output.splitlines()]
    assert lines[0] == "cosimgen cosimgen-scenes"
    assert lines[1].startswith("scenes@1: 12 images to train on, of 12; CC0-1.0; ground ")
    assert lines[2] == "1. cosimgen: 20000 iterations of 16, 26666.7 epochs"
    assert lines[3].startswith("! no worker has measured cosimgen with these options yet")
    assert lines[4].startswith("! scenes@1 has 12 images to train on; below 50")
    assert requests(client) == []


def test_what_the_server_refuses_is_shown(url: str, stored: Stored) -> None:
    stored()
    result = invoke(url, "cosimgen", "--data", "scenes", "--fit", "tiles", "--tile-px", 16, "--scale", 2)
    assert result.exit_code == 1
    detail = getattr(result.exception, "detail", "")
    assert "tile_px 16 and scale 2 say the same" in detail
    unknown = invoke(url, "cosimgen", "--data", "scens")
    assert "did you mean 'scenes'?" in getattr(unknown.exception, "detail", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("cosimgen", "--data", "a", "--url", "http://x", "--out", "runs/a"),
            "--out: with --url the server decides it",
        ),
        (("cosimgen", "--data", "a", "--url", "http://x", "--cpu"), "--cpu: with --url the server decides it"),
        (("cosimgen", "--data", "a", "--out", "r", "--hours", "1"), "--hours: it is for trainings on a server"),
        (("cosimgen", "--data", "a", "--out", "r", "--part", "a.b=1"), "--part: it is for trainings on a server"),
        (("cosimgen", "--data", "a"), "Missing option '--out', the run's folder; or give --url to train on a server"),
        (("siamese", "--data", "a", "--out", "r"), "Missing option '--base'. With --url it may be left out"),
        (("siamese", "--data", "a", "--out", "r", "--base", "no"), "'--base': Directory 'no' does not exist"),
        (("autoencoder", "--data", "a", "--data", "b", "--url", "http://x"), "--data is given 2 times"),
        (("cosimgen", "--data", "a", "--url", "http://x", "--part", "base=1"), "names no option; give one as PART."),
    ],
)
def test_options_of_the_other_place_are_refused(arguments: tuple[str, ...], message: str) -> None:
    result = CliRunner().invoke(train, arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_a_training_on_a_server_needs_no_torch_here(url: str, client: TestClient, stored: Stored) -> None:
    stored()
    script = (
        "import sys\n"
        "class Blocked:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'accelerate', 'diffusers', 'transformers', 'safetensors'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Blocked())\n"
        "from service.cli.root import run\n"
        "sys.exit(run(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", script, "train", "cosimgen", "--data", "scenes", "--iterations", "3"]
    done = subprocess.run([*command, "--url", url], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "succeeded" in done.stdout
    assert requests(client)[0]["settings"] == {"iterations": 3}
    here = subprocess.run([*command, "--out", "r"], capture_output=True, text=True, timeout=120, check=False)
    assert here.returncode == 1
    assert "torch" in here.stderr
