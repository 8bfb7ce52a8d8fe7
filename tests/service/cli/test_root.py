"""Tests of the root command: start-up time, imports and exit codes."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from service.cli.root import COMMANDS, run, signals_unwind


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a few lines of Python in a process of their own."""
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)


def test_help_starts_in_half_a_second_and_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom service.cli.root import run\nassert run(['--help']) == 0\n"
        "heavy = {'torch', 'numpy', 'pydantic', 'rich', 'httpx', 'fastapi', 'celery', 'boto3', 'PIL'}\n"
        "heavy.add('workers.training')\n"
        "print('loaded:', sorted(heavy & sys.modules.keys()))"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    finished = python(code)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "loaded: []" in finished.stdout, finished.stderr
    # Processor time, which a busy machine does not stretch; start-up waits for nothing else.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5
    assert all(name in finished.stdout for name in COMMANDS)


def test_no_command_of_the_service_loads_torch_or_the_workers() -> None:
    code = (
        "import sys, importlib\nfrom service.cli.root import COMMANDS\n"
        "for place, _ in COMMANDS.values(): importlib.import_module(place.partition(':')[0])\n"
        "for name in ('twin_folder', 'local_stack', 'progress', 'http_client'):\n"
        "    importlib.import_module('service.cli.' + name)\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('torch', 'numpy', 'workers', 'diffusers')])"
    )
    assert python(code).stdout.strip() == "[]"


def test_an_interrupt_while_a_module_defines_a_dataclass_has_its_exit_code(tmp_path: Path) -> None:
    (tmp_path / "interrupted.py").write_text(
        "import sys\n"
        "import click\n"
        "from service.cli.root import run, twinset\n"
        "@twinset.command()\n"
        "def loading(): exec('raise KeyboardInterrupt')\n"
        "twinset.table['loading'] = ('interrupted:loading', '')\n"
        "sys.exit(run(['loading']))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-m", "interrupted"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[3]}"},
        stderr=subprocess.PIPE,
    )
    assert (ended.returncode, ended.stderr.strip()) == (130, b"Stopped.")


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for name, (_, help_line) in COMMANDS.items():
        assert run([name, "--help"]) == 0
        assert help_line.rstrip(".") in capsys.readouterr().out.replace("\n  ", " ")


def test_exit_codes_distinguish_wrong_usage_from_failure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["--version"]) == 0
    assert run(["generat"]) == 2
    assert "No such command" in capsys.readouterr().err
    monkeypatch.setenv("TWINSET_STORE_URL", "ftp://nowhere")
    assert run(["settings"]) == 1
    assert "TWINSET_STORE_URL=ftp://nowhere" in capsys.readouterr().err


def test_settings_are_listed_with_their_values_and_without_secrets(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWINSET_LINK_SECRET", "a-secret-nobody-sees")
    monkeypatch.setenv("TWINSET_BROKER_URL", "redis://:hidden@broker:6379/0")
    monkeypatch.setenv("TWINSET_CHUNK_SIZE", "3")
    assert run(["settings"]) == 0
    text = capsys.readouterr().out
    assert "TWINSET_CHUNK_SIZE" in text
    assert "3 * default 8" in text
    assert "hidden" not in text
    assert "nobody-sees" not in text


def test_without_torch_training_says_what_to_install() -> None:
    # None among the loaded modules makes torch look as if it were not installed.
    code = "import sys\nsys.modules['torch'] = None\nfrom service.cli.root import run\nsys.exit(run(sys.argv[1:]))"
    for command in (["train", "cosimgen"], ["train"], ["evaluate", "cosimgen"], ["demo"], ["worker"]):
        finished = python(code, *command)
        assert finished.returncode == 1, finished.stdout
        assert "pip install 'twinset[all]'" in finished.stderr
    assert "train" in python(code, "--help").stdout


def test_a_signal_runs_finally_blocks_and_handlers_are_restored() -> None:
    before = signal.getsignal(signal.SIGTERM)
    cleaned_up = []

    def command() -> None:
        with signals_unwind():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(30)
            finally:
                cleaned_up.append(True)

    with pytest.raises(SystemExit) as stopped:
        command()
    assert cleaned_up
    assert stopped.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
