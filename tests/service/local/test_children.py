"""Tests of child processes: bounded stops, no survivors, and reported failures."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from service.errors import NotReady
from service.local.children import ChildProcess, ChildProcesses, last_lines
from tests.waiting import until

STUBBORN = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(60)
"""
OBEDIENT = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print("cleaned up", flush=True), sys.exit(0)))
print("ready", flush=True)
time.sleep(60)
"""
FAILING = "import sys\nprint('starting')\nsys.exit('no such device')"


@pytest.fixture
def modules(tmp_path: Path) -> dict[str, str]:
    """The environment in which the modules above can be run by name."""
    for name, source in (("stubborn", STUBBORN), ("obedient", OBEDIENT), ("failing", FAILING)):
        (tmp_path / f"{name}.py").write_text(source)
    return {"PYTHONPATH": str(tmp_path)}


def said(child: ChildProcess, words: str) -> Callable[[], bool]:
    return lambda: words in child.log.read_text()


def runs(pid: int) -> bool:
    """Whether the process is there and not merely waiting to be reaped."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_a_stop_waits_for_children_and_kills_those_that_ignore_it(tmp_path: Path, modules: dict[str, str]) -> None:
    with ChildProcesses(tmp_path / "logs") as processes:
        obedient = processes.start("obedient", "obedient", environment=modules)
        stubborn = processes.start("stubborn", "stubborn", environment=modules)
        until(said(obedient, "ready"))
        until(said(stubborn, "deaf"))
        began = time.monotonic()
        processes.stop(grace_s=0.5)
        assert 0.4 < time.monotonic() - began < 3
        assert obedient.process.returncode == 0
        assert stubborn.process.returncode == -signal.SIGKILL
    assert "cleaned up" in obedient.log.read_text()


def test_no_child_is_left_after_the_block_even_after_an_error(tmp_path: Path, modules: dict[str, str]) -> None:
    started: list[ChildProcess] = []

    def interrupted() -> None:
        with ChildProcesses(tmp_path / "logs") as processes:
            started.append(processes.start("stubborn", "stubborn", environment=modules))
            until(said(started[0], "deaf"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert started[0].process.returncode == -signal.SIGKILL
    assert not runs(started[0].pid)


def test_a_failed_child_is_reported_with_its_last_log_lines(tmp_path: Path, modules: dict[str, str]) -> None:
    with ChildProcesses(tmp_path / "logs") as processes:
        failing = processes.start("worker", "failing", environment=modules)
        until(lambda: failing.exit_reason() is not None)
        with pytest.raises(NotReady) as failure:
            processes.check()
    assert "the worker ended with exit code 1" in failure.value.detail
    assert "no such device" in failure.value.detail
    assert str(failing.log) in failure.value.detail


def test_children_end_with_a_parent_that_is_killed(tmp_path: Path, modules: dict[str, str]) -> None:
    parent_code = (
        "import os, sys, time\nfrom pathlib import Path\nfrom service.local.children import ChildProcesses\n"
        "family = ChildProcesses(Path(sys.argv[1])).__enter__()\n"
        "child = family.start('stubborn', 'stubborn', environment={})\n"
        "print(child.pid, flush=True)\ntime.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", parent_code, str(tmp_path / "logs")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{modules['PYTHONPATH']}{os.pathsep}{os.getcwd()}"},
    )
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
        log = tmp_path / "logs" / "stubborn.log"
        until(lambda: log.exists() and "deaf" in log.read_text())
        assert runs(pid)
        parent.kill()
        parent.wait()
    until(lambda: not runs(pid), timeout_s=5)


def test_modules_in_the_current_folder_are_not_imported(
    tmp_path: Path, modules: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stray = tmp_path / "project" / "obedient"
    stray.mkdir(parents=True)
    (stray / "__init__.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.chdir(tmp_path / "project")
    with ChildProcesses(tmp_path / "logs") as processes:
        child = processes.start("obedient", "obedient", environment=modules)
        until(said(child, "ready"))


def test_a_log_is_appended_to_and_rotated_when_large(
    tmp_path: Path, modules: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "logs" / "failing.log"
    for _ in range(2):
        with ChildProcesses(tmp_path / "logs") as processes:
            processes.start("failing", "failing", environment=modules).process.wait()
    assert log.read_text().count("no such device") == 2
    monkeypatch.setattr("service.local.children._LOG_LIMIT_BYTES", 10)
    with ChildProcesses(tmp_path / "logs") as processes:
        processes.start("failing", "failing", environment=modules).process.wait()
    assert log.read_text().count("no such device") == 1
    assert log.with_suffix(".log.old").read_text().count("no such device") == 2


def test_last_lines_returns_the_end_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "long.log"
    path.write_text("".join(f"line {number}\n" for number in range(5000)))
    assert last_lines(path, lines=2) == "  line 4998\n  line 4999"
    assert last_lines(tmp_path / "none.log") == ""
