"""Child processes of the embedded stack, with log files; they end with this process and stop in a bounded time."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from service.errors import NotReady

_LIFELINE = Path(__file__).with_name("lifeline.py")
_LOG_LIMIT_BYTES = 10 * 2**20


@dataclass
class ChildProcess:
    """A Python module that runs as a child process; its output goes to the file ``log``."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    started_at: float = field(default_factory=time.monotonic)

    @property
    def pid(self) -> int:
        return self.process.pid

    def exit_reason(self) -> str | None:
        """How the process ended, as text; None while it runs."""
        code = self.process.poll()
        if code is None:
            return None
        return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"

    def failure(self) -> NotReady:
        """An error that says how the process ended, with the last lines of its log."""
        return NotReady(
            f"the {self.name} {self.exit_reason() or 'does not answer'}; its log is {self.log}, and ends with:\n"
            f"{last_lines(self.log)}"
        )


@dataclass
class ChildProcesses:
    """The child processes of this process. All end with the ``with`` block, and also if this process is killed."""

    log_dir: Path
    children: list[ChildProcess] = field(default_factory=list)
    _lifeline: tuple[int, int] | None = None

    def __enter__(self) -> ChildProcesses:
        self.log_dir.mkdir(parents=True, exist_ok=True)
        self._lifeline = os.pipe()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        if self._lifeline is not None:
            for end in self._lifeline:
                os.close(end)
            self._lifeline = None

    def start(
        self,
        name: str,
        module: str,
        arguments: Sequence[str] = (),
        *,
        environment: Mapping[str, str],
        pass_fds: Sequence[int] = (),
    ) -> ChildProcess:
        """Starts ``python -m module`` with this environment, updated by ``environment``; its output goes to a log file.

        The child has a session of its own: Ctrl-C reaches only this process, which stops the children in order.
        """
        assert self._lifeline is not None, "children can be started only inside the with block"
        reading = self._lifeline[0]
        log = self.log_dir / f"{name}.log"
        if log.exists() and log.stat().st_size > _LOG_LIMIT_BYTES:
            log.replace(log.with_suffix(".log.old"))
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-P", str(_LIFELINE), str(reading), module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(reading, *pass_fds),
                env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
                start_new_session=True,
            )
        child = ChildProcess(name, process, log)
        self.children.append(child)
        return child

    def check(self) -> None:
        """Raises :class:`NotReady` if a child has ended."""
        for child in self.children:
            if child.exit_reason() is not None:
                raise child.failure()

    def stop(self, *, grace_s: float) -> None:
        """Sends SIGTERM to all children, and kills those that still run after ``grace_s`` seconds."""
        for child in self.children:
            child.process.terminate()
        deadline = time.monotonic() + grace_s
        for child in self.children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.process.wait(max(0.0, deadline - time.monotonic()))
        self.kill()

    def kill(self) -> None:
        """Kills all children (SIGKILL) and reaps them."""
        for child in self.children:
            child.process.kill()
        for child in self.children:
            child.process.wait()
        self.children.clear()


def last_lines(path: Path, *, lines: int = 12, max_bytes: int = 4000) -> str:
    """The last lines of a text file, indented; empty if there is no file."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - max_bytes))
        text = file.read().decode(errors="replace")
    return "\n".join(f"  {line}" for line in text.rstrip().splitlines()[-lines:])
