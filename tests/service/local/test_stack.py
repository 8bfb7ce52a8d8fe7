"""Tests of the embedded stack: one per folder, dead workers are restarted, errors are clear."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from service.errors import BrokerUnavailable, NotReady, SettingsError
from service.local.stack import EmbeddedStack, listen_on, local_address
from tests.waiting import until


def test_a_dead_worker_is_restarted_but_not_in_a_crash_loop(tmp_path: Path) -> None:
    with EmbeddedStack(tmp_path / "data", grace_s=0.5) as stack:
        assert stack.restart_dead() is None
        first = next(child for child in stack.processes.children if child.name == "worker")
        first.started_at -= 3600  # as if it had worked for an hour
        os.kill(first.pid, signal.SIGKILL)
        news = until(stack.restart_dead)
        assert news is not None
        assert "killed by signal 9 and was restarted" in news
        second = next(child for child in stack.processes.children if child.name == "worker")
        assert second.pid != first.pid

        os.kill(second.pid, signal.SIGKILL)
        until(second.exit_reason)
        with pytest.raises(NotReady, match="the worker was killed by signal 9"):
            stack.restart_dead()

        with pytest.raises(BrokerUnavailable, match="another broker uses"):
            EmbeddedStack(tmp_path / "data").start()
    assert stack.processes.children == []


def test_a_port_in_use_stops_the_stack_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        stack = EmbeddedStack(tmp_path / "data", port=port)
        with pytest.raises(SettingsError, match=f"cannot listen on port {port} of 127.0.0.1.*--port"):
            stack.start()
    assert not (tmp_path / "data" / "broker").exists()


def test_an_address_of_another_machine_is_named() -> None:
    for host in ("192.0.2.1", "no-such-host.invalid"):
        with pytest.raises(SettingsError, match=f"{host} is not an address of this machine .*--host") as caught:
            listen_on(host, 0)
        assert "another server" not in caught.value.detail


def test_the_local_address_follows_from_the_listening_host() -> None:
    hosts = ("127.0.0.1", "0.0.0.0", "::", "::1", "box")
    assert [local_address(host) for host in hosts] == ["127.0.0.1", "127.0.0.1", "127.0.0.1", "[::1]", "box"]
