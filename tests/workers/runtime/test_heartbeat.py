"""The heartbeat file is touched while the worker's loop turns, and not while it hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from celery import Celery, signals
from redis import Redis

from service.errors import SettingsError
from tests.ports import free_port
from tests.waiting import until
from workers.runtime.heartbeat import HeartbeatFile
from workers.runtime.lease_renewal import LeaseRenewer
from workers.runtime.leases import Leases


@contextmanager
def worker(broker_url: str, folder: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A bulk worker process with a heartbeat file in ``folder``."""
    environment = {
        **os.environ,
        "TWINSET_BROKER_URL": broker_url,
        "TWINSET_DATA_DIR": str(folder),
        "TWINSET_HEARTBEAT_FILE": str(folder / "heartbeat"),
    }
    process = subprocess.Popen([sys.executable, "-m", "workers.bulk.main", *arguments], env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_worker_touches_its_file_until_it_ends(broker_url: str, tmp_path: Path) -> None:
    file = tmp_path / "heartbeat"
    file.touch()
    os.utime(file, (0, 0))
    with worker(broker_url, tmp_path) as process:
        first = until(lambda: (file.exists() and file.stat().st_mtime) or None, timeout_s=60)
        assert first > time.time() - 60
        until(lambda: file.stat().st_mtime > first, timeout_s=30)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert not file.exists()


@pytest.mark.slow
def test_a_worker_without_a_broker_waits_and_is_alive(tmp_path: Path) -> None:
    with worker(f"redis://127.0.0.1:{free_port()}/0", tmp_path):
        first = until(
            lambda: (tmp_path / "heartbeat").exists() and (tmp_path / "heartbeat").stat().st_mtime, timeout_s=60
        )
        until(lambda: (tmp_path / "heartbeat").stat().st_mtime > first, timeout_s=30)


def test_a_loop_that_stands_still_is_noticed(redis: Redis, broker_url: str, tmp_path: Path) -> None:
    app = Celery("stands-still", broker=broker_url, set_as_current=False)
    app.conf.update(worker_pool="threads", worker_concurrency=1, worker_enable_remote_control=False)
    heartbeat = HeartbeatFile(tmp_path / "heartbeat", app, redis, lambda: False, interval_s=0.05, loop_timeout_s=0.5)
    assert not heartbeat.beat()
    ready, block, release, thread = threading.Event(), threading.Event(), threading.Event(), []

    def stand_still() -> None:
        if block.is_set():
            thread.append(threading.current_thread().name)
            release.wait(30)

    signals.worker_ready.connect(lambda **_: ready.set(), weak=False)
    consumer = app.Worker(without_gossip=True, without_mingle=True, without_heartbeat=True, quiet=True)
    running = threading.Thread(target=consumer.start, name="celery", daemon=True)
    running.start()
    assert ready.wait(30)
    until(heartbeat.beat)
    consumer.consumer.timer.call_repeatedly(0.05, stand_still)
    block.set()
    until(lambda: not heartbeat.beat(), timeout_s=10)
    assert thread == ["celery"]
    block.clear()
    release.set()
    until(heartbeat.beat, timeout_s=10)
    consumer.stop()
    running.join(30)


def test_hanging_work_is_noticed(redis: Redis, tmp_path: Path) -> None:
    leases = Leases(redis, 10.0)
    renewer = LeaseRenewer(leases, 10.0, hang_timeout_s=0.05)
    lease = leases.take("j" + "0" * 18, 0)
    assert lease is not None
    with renewer.renewing(lease) as renewed:
        assert not renewer.hangs
        until(lambda: renewer.hangs)
        renewed.heartbeat()
        assert not renewer.hangs
    renewer.close()


def test_a_file_that_cannot_be_written_is_an_error(redis: Redis, tmp_path: Path) -> None:
    app = Celery("no-file", set_as_current=False)
    heartbeat = HeartbeatFile(tmp_path / "none" / "heartbeat", app, redis, lambda: False)
    with pytest.raises(SettingsError, match=r"none/heartbeat cannot be written: No such file .*TWINSET_HEARTBEAT_FILE"):
        heartbeat.start()
    HeartbeatFile(None, app, redis, lambda: False).start()
