"""Tests of ``twinset serve`` and ``twinset worker`` as processes, with a Redis and an S3 bucket."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from service.local.broker import EmbeddedBroker
from tests.ports import free_port
from tests.waiting import until


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Settings that name a broker and a bucket, both running."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    access = {"aws_access_key_id": "test", "aws_secret_access_key": "test-secret", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=endpoint, **access).create_bucket(Bucket="twins")
    with EmbeddedBroker(tmp_path / "broker") as broker:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "TWINSET_"))}
        yield {
            **kept,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test-secret",
            "TWINSET_BROKER_URL": broker.url,
            "TWINSET_STORE_URL": "s3://twins/team",
            "TWINSET_S3_ENDPOINT_URL": endpoint,
            "TWINSET_S3_REGION": "us-east-1",
            "TWINSET_LINK_SECRET": "0123456789abcdef",
            "TWINSET_DATA_DIR": str(tmp_path / "data"),
            "TWINSET_CPU_THREADS": "1",
            "OMP_WAIT_POLICY": "PASSIVE",
            "PYTHONUNBUFFERED": "1",
        }
    server.stop()


def twinset(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "service.cli", *arguments]


@contextmanager
def running(name: str, *arguments: str, environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a command as a process; ends it with SIGTERM."""
    with log.open("wb") as output:
        process = subprocess.Popen(twinset(name, *arguments), env=environment, stdout=output, stderr=output)
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    finally:
        process.kill()
        process.wait()


def test_serve_and_worker_make_twins_over_redis_and_s3(
    environment: dict[str, str], tiny_model: Path, tmp_path: Path
) -> None:
    added = subprocess.run(twinset("models", "add", str(tiny_model)), env=environment, capture_output=True, text=True)
    assert added.returncode == 0, added.stderr
    log, out, metrics_port = tmp_path / "api.log", tmp_path / "twins", free_port()
    with (
        running("worker", "--metrics-port", str(metrics_port), environment=environment, log=tmp_path / "worker.log"),
        running("serve", "--port", "0", environment=environment, log=log) as api,
    ):
        url = until(lambda: re.search(r"listens at (http://127\.0\.0\.1:\d+)", log.read_text()))[1]
        assert api.poll() is None
        asked = [
            "--model",
            "tiny",
            "--prompt",
            "A photo of water",
            "--count",
            "3",
            "--seed",
            "7",
            "--url",
            url,
        ]
        for layout in ("objects", "shards"):
            made = subprocess.run(
                twinset("generate", *asked, "--layout", layout, "--out", str(out / layout)),
                env=environment,
                capture_output=True,
                text=True,
                timeout=90,
            )
            assert made.returncode == 0, made.stderr + (tmp_path / "worker.log").read_text()
        assert "TWINSET_LINK_SECRET" not in log.read_text()
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=10) as answer:
            assert 'twinset_worker_samples_total{result="made"} 6.0' in answer.read().decode()
    pictures = []
    for layout in ("objects", "shards"):
        lines = [json.loads(line) for line in (out / layout / "manifest.jsonl").read_text().splitlines()]
        assert [line["index"] for line in lines] == [0, 1, 2]
        assert {"/shards/" in line["image"]["key"] for line in lines} == {layout == "shards"}
        files = [*(out / layout).glob("images/*.png"), *(out / layout).glob("masks/*.png")]
        pictures.append({path.relative_to(out / layout): path.read_bytes() for path in files})
    assert len(pictures[0]) == 6
    assert pictures[0] == pictures[1]


def test_an_api_over_s3_without_a_link_secret_warns_about_shards(environment: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "api.log"
    del environment["TWINSET_LINK_SECRET"]
    with running("serve", "--port", "0", environment=environment, log=log):
        until(lambda: "listens at" in log.read_text())
        said = until(lambda: re.search(r"Large jobs are stored as one object per file.*", log.read_text()))[0]
    assert "Set it to the same value for all API processes, or set TWINSET_SHARDS_FROM_COUNT=0" in said


def test_a_bulk_worker_refuses_options_of_other_workers() -> None:
    for option in (["--warm", "tiny"], ["--grace-s", "1"]):
        refused = subprocess.run(twinset("worker", "--bulk", *option), capture_output=True, text=True, timeout=30)
        assert refused.returncode == 2
        assert "leave them out with --bulk" in refused.stderr


def test_an_infinite_grace_time_is_refused() -> None:
    for value in ("nan", "inf"):
        refused = subprocess.run(twinset("worker", "--grace-s", value), capture_output=True, text=True, timeout=30)
        assert refused.returncode == 2
        assert f"{value!r} is not a finite number" in refused.stderr


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        finished = subprocess.run(
            twinset("serve", "--port", str(port)),
            env={**os.environ, "TWINSET_DATA_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=30,
        )
    assert finished.returncode == 1
    assert f"port {port} of 127.0.0.1" in finished.stderr
    assert "--port" in finished.stderr
