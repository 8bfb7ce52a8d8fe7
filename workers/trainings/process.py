"""The child process of a stage: started, watched, stopped with a checkpoint, or killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import service.local.lifeline
from service.settings import ENV_PREFIX, Settings

_CHILD = "workers.trainings.child"
_POLL_INTERVAL_S = 0.05
CHILD_LOG = "child.log"


@dataclass
class Child:
    """A running child. Its output is in the folder's ``child.log``."""

    process: subprocess.Popen[bytes]
    folder: Path

    def wait(self, seconds: float) -> int | None:
        """Its exit code, once it has ended within so many seconds; else None."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def stop(self, grace_s: float) -> bool:
        """Asks it to write a checkpoint and end, and kills it after ``grace_s``; whether it ended by itself."""
        self.process.terminate()
        deadline = time.monotonic() + grace_s
        while time.monotonic() < deadline:
            if self.wait(_POLL_INTERVAL_S) is not None:
                return True
        self.kill()
        return False

    def kill(self) -> None:
        """Kills it and waits for its end."""
        self.process.kill()
        self.process.wait()

    def last_words(self, *, max_bytes: int = 2000) -> str:
        """The end of its output."""
        try:
            return (self.folder / CHILD_LOG).read_bytes()[-max_bytes:].decode(errors="replace").strip()
        except OSError:
            return ""


@contextmanager
def running_child(folder: Path, settings: Settings, processes: int) -> Iterator[Child]:
    """Starts the child of a stage's folder; it is killed at the end, and also if this process is killed.

    Several ``processes``, one a GPU, are started by ``accelerate launch``.
    """
    module = [_CHILD, str(folder)]
    if processes > 1:
        module = ["accelerate.commands.launch", "--num_processes", str(processes), "-m", *module]
    read_end, write_end = os.pipe()
    try:
        with (folder / CHILD_LOG).open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-P", str(Path(service.local.lifeline.__file__)), str(read_end), *module],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(read_end,),
                env={**os.environ, "PYTHONUNBUFFERED": "1", **environment(settings)},
                start_new_session=True,
            )
        child = Child(process, folder)
        try:
            yield child
        finally:
            if process.poll() is None:
                child.kill()
    finally:
        os.close(read_end)
        os.close(write_end)


def environment(settings: Settings) -> dict[str, str]:
    """The environment variables that give a process these settings."""
    given = settings.model_dump(mode="python", exclude_unset=True)
    return {f"{ENV_PREFIX}{name.upper()}": _text(value) for name, value in given.items() if value is not None}


def _text(value: object) -> str:
    if hasattr(value, "get_secret_value"):
        return str(value.get_secret_value())
    if isinstance(value, (str, int, float, Path)):
        return str(value)
    return json.dumps(value, default=str)
