"""The embedded stack's child processes: started with a log file and a lifeline, stopped in a bounded time."""

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
class Child:
    """One running module. ``log`` is the file that its output goes to."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    started_at: float = field(default_factory=time.monotonic)

    @property
    def pid(self) -> int:
        return self.process.pid

    def ended(self) -> str | None:
        """How the process ended, in words, or None while it runs."""
        code = self.process.poll()
        if code is None:
            return None
        return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"

    def failure(self) -> NotReady:
        """The error that says how the process ended, and its last words."""
        return NotReady(
            f"the {self.name} {self.ended() or 'does not answer'}; its log is {self.log}, and ends with:\n"
            f"{last_lines(self.log)}"
        )


@dataclass
class Family:
    """The children of one process. All are gone when the ``with`` block ends, and also if this process is killed."""

    log_dir: Path
    children: list[Child] = field(default_factory=list)
    _lifeline: tuple[int, int] | None = None

    def __enter__(self) -> Family:
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
    ) -> Child:
        """Starts ``python -m module`` with our environment and ``environment`` on top, its output into a log file.

        In a session of its own, so that Ctrl-C in the terminal reaches this process alone, which stops the children
        in their order.
        """
        assert self._lifeline is not None, "a Family starts children inside its with block only"
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
        child = Child(name, process, log)
        self.children.append(child)
        return child

    def check(self) -> None:
        """Raises :class:`NotReady` if a child has ended."""
        for child in self.children:
            if child.ended() is not None:
                raise child.failure()

    def stop(self, *, grace_s: float) -> None:
        """Asks all children to end (SIGTERM) and kills those that have not after ``grace_s`` seconds."""
        for child in self.children:
            child.process.terminate()
        deadline = time.monotonic() + grace_s
        for child in self.children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.process.wait(max(0.0, deadline - time.monotonic()))
        self.kill()

    def kill(self) -> None:
        """Ends all children at once (SIGKILL) and reaps them."""
        for child in self.children:
            child.process.kill()
        for child in self.children:
            child.process.wait()
        self.children.clear()


def last_lines(path: Path, *, lines: int = 12, max_bytes: int = 4000) -> str:
    """The end of a text file, indented; empty where there is no file."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - max_bytes))
        text = file.read().decode(errors="replace")
    return "\n".join(f"  {line}" for line in text.rstrip().splitlines()[-lines:])
