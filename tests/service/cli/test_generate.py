"""Tests of ``twinset generate`` against a real API: output, checks and errors."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from PIL import Image

from service.cli.http_client import ApiClient, NoServerAnswers
from service.cli.root import run
from tests.service.cli.conftest import LiveApi


@pytest.mark.parametrize("layout", ["objects", "shards"])
def test_twins_are_downloaded_completely_and_in_order(
    live_api: LiveApi, tmp_path: Path, capsys: pytest.CaptureFixture[str], layout: str
) -> None:
    out = tmp_path / "twins"
    arguments = [
        "--model",
        "aerial",
        "--classes",
        "Water, plants",
        "--count",
        "7",
        "--seed",
        "5",
        "--layout",
        layout,
        "--out",
        str(out),
    ]
    assert run(["generate", *arguments, "--url", live_api.url]) == 0

    names = [f"{index:08d}.png" for index in range(7)]
    assert sorted(path.name for path in (out / "images").iterdir()) == names
    assert sorted(path.name for path in (out / "masks").iterdir()) == names
    lines = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert [line["index"] for line in lines] == list(range(7))
    for line in lines:
        for kind in ("image", "mask"):
            path = out / f"{kind}s" / f"{line['index']:08d}.png"
            assert hashlib.sha256(path.read_bytes()).hexdigest() == line[kind]["sha256"]
    assert ("/shards/" in lines[0]["image"]["key"]) == (layout == "shards")
    assert lines[0]["classes"] == ["water", "vegetation"]
    assert lines[0]["job_seed"] == 5
    with Image.open(out / "contact_sheet.png") as sheet:
        assert sheet.width > 1000
    text = capsys.readouterr().out
    assert "7 twins in" in text
    assert str(out / "contact_sheet.png") in text


def test_every_parameter_reaches_the_server(live_api: LiveApi, tmp_path: Path) -> None:
    asked = [
        "--prompt",
        "A photo of water",
        "--steps",
        "3",
        "--guidance-scale",
        "1.5",
        "--eta",
        "0.5",
        "--size",
        "128",
        "--priority",
        "interactive",
    ]
    common = ["--model", "aerial@1.0.0", "--count", "1", "--name", "mine", "--out", str(tmp_path / "twins")]
    assert run(["generate", *common, *asked, "--url", live_api.url]) == 0
    with ApiClient(live_api.url) as client:
        job = client.job(live_api.worker.sent[0][0])
    expected = {
        "steps": 3,
        "guidance_scale": 1.5,
        "eta": 0.5,
        "size": 128,
        "priority": "interactive",
        "prompt": "A photo of water",
        "count": 1,
    }
    assert job["parameters"].items() >= expected.items()
    assert job["name"] == "mine"


def test_wrong_usage_is_refused_before_any_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["generate", "--model", "aerial", "--count", "1", "--url", "http://127.0.0.1:1"]
    assert run([*common, "--out", str(tmp_path / "new")]) == 2
    assert run([*common, "--out", str(tmp_path / "new"), "--prompt", "p", "--classes", "water"]) == 2
    told = capsys.readouterr().err
    assert "give --prompt, --classes or --mask" in told
    assert "--classes cannot be combined" in told
    uncounted = ["generate", "--model", "aerial", "--url", "http://127.0.0.1:1", "--out", str(tmp_path / "new")]
    assert run([*uncounted, "--prompt", "p"]) == 2
    assert "it may be left out only with --mask" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert run([*uncounted, "--mask", str(tmp_path / "empty")]) == 2
    assert "folder without *.png files" in capsys.readouterr().err
    assert run([*uncounted, "--mask", str(tmp_path / "nowhere")]) == 2
    (tmp_path / "kept.txt").write_text("mine")
    assert run([*common, "--out", str(tmp_path), "--prompt", "p"]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert run([*common, "--out", str(tmp_path / "new"), "--count", "0", "--prompt", "p"]) == 2
    assert run([*common, "--out", str(tmp_path / "new"), "--priority", "high", "--prompt", "p"]) == 2
    assert "'interactive'" in capsys.readouterr().err
    for option in ("--guidance-scale", "--eta"):
        assert run([*common, "--out", str(tmp_path / "new"), option, "nan", "--prompt", "p"]) == 2
        assert f"Invalid value for '{option}': 'nan' is not a finite number" in capsys.readouterr().err


def test_without_a_server_the_error_says_how_to_start_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "twins"
    arguments = [
        "--model",
        "aerial",
        "--prompt",
        "p",
        "--count",
        "1",
        "--out",
        str(out),
        "--url",
        "http://127.0.0.1:1",
    ]
    began = time.monotonic()
    assert run(["generate", *arguments]) == 1
    assert time.monotonic() - began < 3
    error = capsys.readouterr().err
    assert "http://127.0.0.1:1 does not answer" in error
    assert "twinset up" in error
    assert not out.exists()


def test_the_servers_problem_is_shown_with_its_remedy(
    live_api: LiveApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "twins"
    common = ["--count", "1", "--out", str(out), "--url", live_api.url]
    assert run(["generate", "--model", "aerial", "--classes", "watr", *common]) == 1
    error = capsys.readouterr().err
    assert "The model knows no such class" in error
    assert "did you mean 'water'" in error
    assert run(["generate", "--model", "areal", "--classes", "water", *common]) == 1
    assert "did you mean 'aerial'" in capsys.readouterr().err
    assert run(["generate", "--model", "aerial", "--classes", "watr", "--name", "a" * 200, *common]) == 1
    error = capsys.readouterr().err
    assert error.count("did you mean 'water'") == 1
    assert error.count("it has 200 characters") == 1
    assert not out.exists()


def test_a_partial_job_gives_its_twins_and_exit_code_1(
    live_api: LiveApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    live_api.worker.failing = (1,)
    out = tmp_path / "twins"
    arguments = [
        "--model",
        "aerial",
        "--prompt",
        "p",
        "--count",
        "3",
        "--out",
        str(out),
        "--url",
        live_api.url,
    ]
    assert run(["generate", *arguments]) == 1
    assert "ended partial, 2 of 3 made" in capsys.readouterr().err
    assert [path.name for path in sorted((out / "images").iterdir())] == ["00000000.png", "00000002.png"]


def test_a_damaged_object_is_detected(live_api: LiveApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    live_api.worker.damaged_mask = 1
    arguments = [
        "--model",
        "aerial",
        "--prompt",
        "p",
        "--count",
        "2",
        "--out",
        str(tmp_path / "t"),
        "--url",
        live_api.url,
    ]
    assert run(["generate", *arguments]) == 1
    said = capsys.readouterr().err
    assert re.search(r"masks/00000001\.[0-9a-f]{16}\.png in the object store has sha256", said)
    assert re.search(r"it is damaged; POST /jobs/j[0-9a-z]+/repair makes it again", said)


def test_ctrl_c_cancels_the_job(live_api: LiveApi, tmp_path: Path) -> None:
    live_api.worker.idle = True
    out = tmp_path / "twins"
    arguments = [
        "--model",
        "aerial",
        "--prompt",
        "p",
        "--count",
        "4",
        "--out",
        str(out),
        "--url",
        live_api.url,
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "service.cli", "generate", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with ApiClient(live_api.url) as client:
        # Only once it follows the job can Ctrl-C be about it.
        while 'method="GET",route="/jobs/{job}"' not in client.fetch("/metrics").decode():
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        job = live_api.worker.sent[0][0]
        os.kill(process.pid, signal.SIGINT)
        _, error = process.communicate(timeout=20)
        assert process.returncode == 130
        assert client.job(job)["state"] in ("cancelling", "cancelled")
    assert f"Job {job} is cancel" in error
    assert not out.exists()


def test_the_client_waits_for_a_server_that_restarts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as placeholder:
        port = placeholder.getsockname()[1]
    refused = threading.Event()
    answers: list[str] = []

    class Watched(ApiClient):
        def _unreachable(self, error: httpx.TransportError, path: str) -> NoServerAnswers:
            refused.set()
            return super()._unreachable(error, path)

    def ask() -> None:
        with Watched(f"http://127.0.0.1:{port}", wait_timeout_s=10) as client:
            answers.append(client.job("any")["state"])

    asking = threading.Thread(target=ask)
    asking.start()
    assert refused.wait(5)
    body = b'{"state": "running"}'
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_server(("127.0.0.1", port)) as late:
        connection, _ = late.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(head.encode() + body)
    asking.join(10)
    assert answers == ["running"]
