"""End-to-end tests: command line, API, Celery, broker, worker, engine, folder store and zip, all of them real."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from service.store import keys
from tests.waiting import until

ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "TWINSET_CPU_THREADS": "1",
    "TWINSET_CHUNK_SIZE": "2",
    "TWINSET_DEVICE": "cpu",
}


def descendants(pid: int) -> set[int]:
    """Ids of all running processes that descend from this one."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state != "Z":
            parents[int(path.parent.name)] = int(parent)
    found: set[int] = set()
    while more := {child for child, parent in parents.items() if parent in found | {pid}} - found:
        found |= more
    return found


def running(pids: set[int]) -> set[int]:
    """The processes that still run."""
    return {pid for pid in pids if state_of(pid) not in ("", "Z")}


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


@dataclass(frozen=True)
class Up:
    """A running ``twinset up``."""

    process: subprocess.Popen[str]
    url: str
    api: httpx.Client


def command(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Starts ``twinset`` with these arguments."""
    environment = {**os.environ, **ENVIRONMENT, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "service.cli", *arguments],
        text=True,
        env=environment,
        stderr=subprocess.STDOUT,
        **options,
    )


@contextmanager
def twinset_up(data_dir: Path) -> Iterator[Up]:
    """A running ``twinset up`` over the folder; Ctrl-C ends it, and no process is left."""
    process = command("up", "--port", "0", "--data-dir", str(data_dir), stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        first = process.stdout.readline()
        found = re.search(r"up at (http://\S+)", first)
        assert found, first + process.stdout.read()
        with httpx.Client(base_url=found[1], trust_env=False, timeout=60) as api:
            yield Up(process, found[1], api)
        processes = descendants(process.pid)
        assert len(processes) >= 3, "a broker, an API and a worker were running"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert running(processes) == set()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def finished(api: httpx.Client, job: str) -> dict[str, Any]:
    """The job, once it has ended."""
    return until(lambda: (view := api.get(f"/jobs/{job}").json())["finished_at"] and view)


def test_twins_of_a_prompt_are_stored_and_outlive_the_stack(tiny_model: Path, tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    request = {"model": "tiny", "prompt": "A photo of water and a road", "count": 5, "seed": 11}
    added = subprocess.run(
        [sys.executable, "-m", "service.cli", "models", "add", str(tiny_model)],
        env={**os.environ, "TWINSET_DATA_DIR": str(data_dir)},
    )
    assert added.returncode == 0

    with twinset_up(data_dir) as up:
        answer = up.api.post("/generate", json=request)
        assert answer.status_code == 202
        job = answer.json()["id"]
        # What was answered with 202 is in the store already.
        assert (data_dir / "store" / keys.job_spec(job)).is_file()
        view = finished(up.api, job)
        assert (view["state"], view["done"], view["failed"]) == ("succeeded", 5, 0)
        samples = up.api.get(f"/jobs/{job}/samples").json()["samples"]
        assert [sample["index"] for sample in samples] == list(range(5))
        for sample in samples:
            for kind, mode in (("image", "RGB"), ("mask", "P")):
                data = httpx.get(sample[kind]["url"], trust_env=False).content
                assert hashlib.sha256(data).hexdigest() == sample[kind]["sha256"]
                with Image.open(io.BytesIO(data)) as image:
                    assert (image.size, image.mode) == ((32, 32), mode)
        archive = up.api.get(f"/jobs/{job}/archive").content

    with zipfile.ZipFile(io.BytesIO(archive)) as zipped:
        assert zipped.testzip() is None
        lines = [json.loads(line) for line in zipped.read("manifest.jsonl").splitlines()]
        assert [line["index"] for line in lines] == list(range(5))
        for line in lines:
            name = f"{line['index']:08d}.png"
            assert hashlib.sha256(zipped.read(f"masks/{name}")).hexdigest() == line["mask"]["sha256"]
            assert set(Image.open(io.BytesIO(zipped.read(f"masks/{name}"))).tobytes()) <= {0, 1, 2, 255}

    # A new stack over the same folder: the job is there, its links work anew, and the same request gives the same
    # bytes.
    with twinset_up(data_dir) as up:
        assert up.api.get(f"/jobs/{job}").json()["state"] == "succeeded"
        assert [view["id"] for view in up.api.get("/jobs").json()["jobs"]] == [job]
        again = up.api.post("/generate", json=request, headers={"Prefer": "wait=60"}).json()
        assert again["state"] == "succeeded"
        hashes = [(sample["image"]["sha256"], sample["mask"]["sha256"]) for sample in samples]
        repeated = up.api.get(f"/jobs/{again['id']}/samples").json()["samples"]
        assert [(sample["image"]["sha256"], sample["mask"]["sha256"]) for sample in repeated] == hashes


def test_a_job_interrupted_by_ctrl_c_continues_at_the_next_start(tiny_model: Path, tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    environment = {**os.environ, "TWINSET_DATA_DIR": str(data_dir)}
    subprocess.run([sys.executable, "-m", "service.cli", "models", "add", str(tiny_model)], env=environment, check=True)
    with twinset_up(data_dir) as up:
        request = {"model": "tiny", "classes": ["water"], "count": 24, "steps": 60}
        job = up.api.post("/generate", json=request).json()["id"]
        until(lambda: up.api.get(f"/jobs/{job}").json()["done"] > 0)
    assert not (data_dir / "store" / keys.job_summary(job)).exists()
    with twinset_up(data_dir) as up:
        view = finished(up.api, job)
        assert (view["state"], view["done"]) == ("succeeded", 24)


@pytest.mark.parametrize("how", ["to the end", signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_demo_leaves_no_process(how: Any, tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    # the signal must reach the demo at work: Python cannot catch one that comes as it ends
    count = "4" if how == "to the end" else "512"
    demo = command("demo", "--model", str(tiny_model), "--count", count, "--out", str(out), stdout=subprocess.PIPE)
    assert demo.stdout is not None
    with demo.stdout:
        try:
            read = [demo.stdout.readline()]
            processes = descendants(demo.pid)
            assert len(processes) >= 3, read
            if how == "to the end":
                text = demo.stdout.read()
                assert demo.wait(60) == 0, text
                assert "4 twins in" in text
                assert str(out / "contact_sheet.png") in text
                with Image.open(out / "contact_sheet.png") as sheet:
                    assert sheet.width > 1000
                assert len(list((out / "images").iterdir())) == len(list((out / "masks").iterdir())) == 4
            else:
                demo.send_signal(how)
                # a shell reports 128 + N for both: an exit with that code, and an end by the signal where Python can no
                # longer catch it
                ends = {-how} if how is signal.SIGKILL else {128 + how, -how}
                assert demo.wait(30) in ends
        finally:
            demo.kill()
            demo.wait()
    until(lambda: not running(processes), timeout_s=10)
