"""The parent's side of a child with limits: starts it, answers its calls, watches what it uses, and ends it."""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

import service.errors
from service.errors import StoreError, TwinsetError
from service.kit.validation import escape_control
from service.sandbox.frames import FrameBuffer, ProtocolBroken, as_frame
from service.sandbox.limits import SandboxLimits

logger = logging.getLogger(__name__)
_LAUNCHER = Path(__file__).with_name("launcher.py")
_TICK_S = 0.2
_READ_BYTES = 1 << 18
_LOG_BYTES = 8192
_MAX_DETAIL = 20_000
_SPARE_SHARE, _SPARE_BYTES, _SPARE_FILES = 0.05, 1 << 30, 20_000
"""A child stops where less than this share of the disk, and less than this, would stay free."""
_KEPT_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "TZ", "SYSTEMROOT")
_ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "PYTHONUNBUFFERED": "1",
    # every thread of these would reserve addresses, and one image at a time needs no threads
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
    # Arrow's own allocators reserve a gigabyte before they hold anything
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}

Bound = Literal["memory", "cpu", "time", "disk", "unexpected"]
Answer = Callable[[str, Mapping[str, Any], bytes], tuple[dict[str, Any], bytes]]
"""What the parent does for a call, by its name, values and bytes: the values and bytes of the answer."""


class SandboxExceeded(Exception):
    """A child needed more than its limits allow, or came upon something that its code does not foresee.

    ``bound`` names the limit; ``detail`` says in words what happened. The same work would end in the same way.
    """

    def __init__(self, bound: Bound, detail: str) -> None:
        super().__init__(detail)
        self.bound: Bound = bound
        self.detail = detail


class SandboxLost(Exception):
    """A child ended for want of memory or disk on the machine, perhaps through others; it may be tried again."""


@dataclass(frozen=True)
class SandboxResult:
    """What a child has given back: foreign data, to be checked."""

    values: dict[str, Any]
    body: bytes


def _nothing(name: str, values: Mapping[str, Any]) -> None:
    pass


@dataclass
class Sandbox:
    """One child process that does ``module``'s work on ``request``, and the bytes ``body`` that go with it.

    ``tick`` is called several times a second; what it raises ends the child. ``on_report`` gets what the child reports,
    ``answer`` does what it asks for. ``folder`` is the one in which it may write. Of the store's errors it can raise
    those that ``believed`` names; its parent knows of the others.
    """

    module: str
    request: Mapping[str, Any]
    limits: SandboxLimits
    answer: Answer
    body: bytes = b""
    folder: Path | None = None
    tick: Callable[[], None] = lambda: None
    on_report: Callable[[str, Mapping[str, Any]], None] = _nothing
    believed: tuple[type[StoreError], ...] = ()
    peak_bytes: int = 0
    """The most memory in use that was seen, which Linux tells."""
    _process: subprocess.Popen[bytes] | None = None
    _log: bytes = b""
    _looked_at: float = float("-inf")
    _look_again_s: float = 1.0
    _deadline: float = field(default=float("inf"))

    def run(self) -> SandboxResult:
        """Does the work in a child, which has ended when this returns or raises.

        Raises :class:`SandboxExceeded`, :class:`SandboxLost`, the TwinsetError that the child ends with, and what
        ``tick``, ``on_report`` and ``answer`` raise.
        """
        self._deadline = time.monotonic() + self.limits.timeout_s
        numbers = (self.limits.memory_bytes, self.limits.cpu_s, self.limits.file_bytes, os.getpid())
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_LAUNCHER), self.module, ",".join(map(str, numbers))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environment(),
            cwd=self.folder,
            close_fds=True,
            # a group of its own, which ends as a whole; Ctrl-C reaches the parent alone
            start_new_session=True,
        )
        try:
            return self._converse(self._process)
        finally:
            self._end(self._process)

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
        if "PYTHONPATH" in kept:
            # nothing is imported from the folder in which foreign files lie
            kept["PYTHONPATH"] = os.pathsep.join(
                os.path.abspath(part) for part in kept["PYTHONPATH"].split(os.pathsep) if part
            )
        return {
            **kept,
            **_ENVIRONMENT,
            **({"TMPDIR": str(self.folder), "HOME": str(self.folder)} if self.folder else {}),
        }

    def _converse(self, process: subprocess.Popen[bytes]) -> SandboxResult:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        for pipe in (process.stdin, process.stdout, process.stderr):
            os.set_blocking(pipe.fileno(), False)
        buffer = FrameBuffer()
        listening: list[IO[bytes]] = [process.stdout, process.stderr]
        try:
            self._send(process.stdin, as_frame(dict(self.request), self.body))
            while process.stdout in listening:
                self._watch()
                ready, _, _ = select.select(listening, [], [], _TICK_S)
                for pipe in ready:
                    piece = os.read(pipe.fileno(), _READ_BYTES)
                    if not piece:
                        listening.remove(pipe)
                    elif pipe is process.stderr:
                        self._log = (self._log + piece)[-_LOG_BYTES:]
                    else:
                        buffer.feed(piece)
                while (frame := buffer.take()) is not None:
                    if (result := self._handle(process.stdin, *frame)) is not None:
                        return result
        except ProtocolBroken as error:
            raise SandboxExceeded("unexpected", f"its process sent what it must not ({error})") from None
        except BrokenPipeError:
            pass
        raise self._death(process)

    def _handle(self, pipe: IO[bytes], message: dict[str, Any], body: bytes) -> SandboxResult | None:
        """Does what a message says; the result, if it is that."""
        if isinstance(message.get("result"), dict):
            return SandboxResult(message["result"], body)
        if isinstance(message.get("error"), dict):
            raise _error(message["error"], self.believed)
        if isinstance(name := message.pop("report", None), str):
            self.on_report(name, message)
        elif isinstance(name := message.pop("call", None), str):
            try:
                values, found = self.answer(name, message, body)
            except Exception as error:
                # the child has no use for the reason: the parent ends it in a moment
                if isinstance(error, StoreError) and error.status in (404, 409):
                    values, found = {"missing": error.slug}, b""
                else:
                    raise
            self._send(pipe, as_frame(values, found))
        else:
            raise ProtocolBroken("a message is of no known kind")
        return None

    def _send(self, pipe: IO[bytes], data: bytes) -> None:
        view = memoryview(data)
        while view:
            self._watch()
            _, ready, _ = select.select([], [pipe], [], _TICK_S)
            if ready:
                view = view[os.write(pipe.fileno(), view[:_READ_BYTES]) :]

    def _watch(self) -> None:
        """Raises if the child must end."""
        self.tick()
        now = time.monotonic()
        if now > self._deadline:
            raise SandboxExceeded("time", f"it takes more than {self.limits.timeout_s:g} s")
        if now - self._looked_at >= self._look_again_s:
            self._look()
            self._looked_at = time.monotonic()
            # many files take long to count: the next look may wait for as long as ten of them
            self._look_again_s = max(1.0, 10 * (self._looked_at - now))

    def _look(self) -> None:
        """Looks at the child's memory and folder.

        Raises :class:`SandboxExceeded` if it holds too much, :class:`SandboxLost` if the disk is full.
        """
        if self._process is not None:
            self.peak_bytes = max(self.peak_bytes, _peak_bytes(self._process.pid))
        if self.folder is None:
            return
        limits, size, files = self.limits, 0, 0
        for inside, folders, names in os.walk(self.folder):
            files += len(folders) + len(names)
            for name in names:
                try:
                    size += os.lstat(os.path.join(inside, name)).st_blocks * 512
                except OSError:
                    continue
            if files > limits.folder_files:
                raise SandboxExceeded("disk", f"it writes more than {limits.folder_files} files")
            if size > limits.folder_bytes:
                raise SandboxExceeded("disk", f"it writes more than {limits.folder_bytes} bytes")
        disk = os.statvfs(self.folder)
        spare_blocks = min(_SPARE_SHARE * disk.f_blocks, _SPARE_BYTES / max(1, disk.f_frsize))
        if disk.f_bavail < spare_blocks or disk.f_ffree < min(_SPARE_SHARE * disk.f_files, _SPARE_FILES):
            raise SandboxLost("the disk of its folder is nearly full, and the rest is left to others")

    def _death(self, process: subprocess.Popen[bytes]) -> Exception:
        """Why the child has ended without a result."""
        try:
            code = process.wait(5)
        except subprocess.TimeoutExpired:
            return SandboxExceeded("unexpected", "its process closed its output and went on")
        text = escape_control(self._log.decode(errors="replace").strip(), keep="\n")
        if text:
            logger.warning("%s ended with %d; the end of its output:\n%s", self.module, code, text[-2000:])
        if code == -signal.SIGXCPU:
            return SandboxExceeded("cpu", f"it takes more than {self.limits.cpu_s} s of a processor's time")
        if code == -signal.SIGKILL:
            return SandboxLost("its process was killed; the machine may be out of memory")
        last = text.splitlines()[-1][:200] if text else "it said nothing"
        if "MemoryError" in last or "bad_alloc" in text:
            return SandboxExceeded("memory", f"it needs more than {self.limits.memory_bytes} bytes of memory")
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return SandboxExceeded("unexpected", f"its process ended with {how} ({last})")

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """Kills the child with its group, if it still runs, and reaps it."""
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    continue


def _error(values: Mapping[str, Any], believed: tuple[type[StoreError], ...]) -> Exception:
    """The exception that a child's error stands for: of a class of :mod:`service.errors`, its texts made safe."""
    if values.get("limit") == "memory":
        return SandboxExceeded("memory", "it needs more memory than a process that reads foreign data may use")
    if isinstance(unexpected := values.get("unexpected"), str):
        return SandboxExceeded("unexpected", escape_control(unexpected[:_MAX_DETAIL]))
    kind = getattr(service.errors, str(values.get("kind")), None)
    detail, extra = values.get("detail"), values.get("extra")
    if not (isinstance(kind, type) and issubclass(kind, TwinsetError)) or not isinstance(detail, str):
        return SandboxExceeded("unexpected", "its process sent an error of no known kind")
    if issubclass(kind, StoreError) and kind not in believed:
        return SandboxExceeded("unexpected", escape_control(detail[:_MAX_DETAIL]))
    try:
        return kind(escape_control(detail[:_MAX_DETAIL]), **(extra if isinstance(extra, dict) else {}))
    except TypeError:
        return SandboxExceeded("unexpected", escape_control(detail[:_MAX_DETAIL]))


def _peak_bytes(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) << 10
    except (OSError, ValueError, IndexError):
        pass
    return 0
