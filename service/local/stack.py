"""The embedded stack: broker, API and workers on one machine, over one folder, started and stopped together.

    EmbeddedStack(folder) as stack:   broker, which locks the folder -> API and workers -> the API says it is ready
    end of the block:                 API and workers get SIGTERM, then SIGKILL; the broker last; nothing is left

There are two workers: one makes twins, one, without torch, takes datasets in and writes exports.

The folder holds everything (``store/``, ``broker/``, ``logs/``, ``secret``), so a stack started on it again goes on
where the last one was stopped, or killed.
"""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from service.errors import NotReady, SettingsError
from service.local.children import Family

_READY_TIMEOUT_S = 60.0
_POLL_S = 0.05
_CRASH_LOOP_S = 20.0
_WORKERS = {"worker": "workers.main", "bulk-worker": "workers.bulk.main"}
"""The workers' modules, by the names of their logs."""


class EmbeddedStack:
    """Everything that makes twins, while its ``with`` block lasts.

    ``port`` 0 takes a free one. ``grace_s`` is how long a worker may go on with what it has begun once it is told to
    stop; what it does not end is made again at the next start. Without ``bulk``, there is no worker for datasets,
    augmentation sets and exports. ``settings`` are environment variables for API and worker. ``on_step`` hears the name
    of each part as it comes up.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        grace_s: float = 10.0,
        bulk: bool = True,
        settings: Mapping[str, str] | None = None,
        on_step: Callable[[str], None] = lambda step: None,
    ) -> None:
        self.data_dir = data_dir.expanduser().absolute()
        self.host, self.port, self.grace_s = host, port, grace_s
        self.url = ""
        self.broker_url = ""
        self.family = Family(self.data_dir / "logs")
        self._bulk = bulk
        self._settings = dict(settings or {})
        self._on_step = on_step
        self._parts = ExitStack()

    def __enter__(self) -> EmbeddedStack:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Starts all parts and waits until the API is ready; if one does not come up, none is left.

        Raises :class:`NotReady`, :class:`BrokerUnavailable`, or :class:`SettingsError` for a port that is taken.
        """
        require_worker_parts()
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stops all parts. No error if none runs."""
        self._parts.close()

    @property
    def store_dir(self) -> Path:
        """The folder of the object store."""
        return self.data_dir / "store"

    def check(self) -> None:
        """Raises :class:`NotReady`, with the last words of its log, if a part has ended by itself."""
        self.family.check()

    def restart_dead(self) -> str | None:
        """Starts a worker again if it has ended, and says so; a worker may run out of memory, and loses nothing by it.

        Raises :class:`NotReady` as :meth:`check` does if another part has ended, or a worker soon after its start.
        """
        for worker in [child for child in self.family.children if child.name in _WORKERS]:
            ended = worker.ended()
            if ended is not None and time.monotonic() - worker.started_at >= _CRASH_LOOP_S:
                self.family.children.remove(worker)
                self._start_worker(worker.name)
                return f"the {worker.name} {ended}, and was started again; its log is {worker.log}"
        self.check()
        return None

    def _start_worker(self, name: str) -> None:
        self.family.start(name, _WORKERS[name], environment=self._environment())

    def _start(self) -> None:
        from service.local.broker import EmbeddedBroker

        self.data_dir.mkdir(parents=True, exist_ok=True)
        listener = self._parts.enter_context(listen_on(self.host, self.port))
        self.port = listener.getsockname()[1]
        self.url = f"http://{local_address(self.host)}:{self.port}"
        # Its lock on the folder keeps a second stack off.
        broker = self._parts.enter_context(EmbeddedBroker(self.data_dir))
        self.broker_url = broker.url
        self._on_step("broker")

        self._parts.enter_context(self.family)
        self._parts.callback(self.family.stop, grace_s=self.grace_s)
        # The worker takes longest to come up, so it is started first and nobody waits for it: a job may be queued
        # before.
        self._start_worker("worker")
        self.family.start(
            "api",
            "service.cli",
            ["serve", "--fd", str(listener.fileno())],
            environment=self._environment(),
            pass_fds=[listener.fileno()],
        )
        if self._bulk:
            self._start_worker("bulk-worker")
        # Ours is closed, so that an API that has ended refuses connections, rather than let them wait for ever.
        listener.close()
        self._wait_until_ready()
        self._on_step("api")

    def _environment(self) -> dict[str, str]:
        return {
            "TWINSET_DATA_DIR": str(self.data_dir),
            "TWINSET_STORE_URL": self.store_dir.as_uri(),
            "TWINSET_BROKER_URL": self.broker_url,
            "TWINSET_HOST": self.host,
            "TWINSET_PORT": str(self.port),
            "TWINSET_PUBLIC_URL": self.url,
            # OpenMP threads that spin while they wait would take the cores from the rest of the stack.
            "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
            **self._settings,
        }

    def _wait_until_ready(self) -> None:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        deadline = time.monotonic() + _READY_TIMEOUT_S
        answer = "nothing"
        while time.monotonic() < deadline:
            self.check()
            try:
                with opener.open(f"{self.url}/readyz", timeout=5.0):
                    return
            except urllib.error.HTTPError as error:
                answer = error.read().decode(errors="replace")
            except OSError as error:
                answer = str(error)
            time.sleep(_POLL_S)
        raise NotReady(
            f"the API was not ready within {_READY_TIMEOUT_S:.0f} s; its last answer was: {_detail(answer)}. "
            f"The logs are in {self.family.log_dir}"
        )


def require_worker_parts() -> None:
    """Raises :class:`NotReady` that names the missing extra unless what a worker needs is installed."""
    if importlib.util.find_spec("torch") is None:
        raise NotReady(
            "the worker needs PyTorch and the like: pip install 'twinset[all]', or 'twinset[worker]' for it alone"
        )


def _detail(answer: str) -> str:
    try:
        return str(json.loads(answer)["detail"])
    except (ValueError, KeyError, TypeError):
        return answer


def local_address(host: str) -> str:
    """The address under which this machine reaches a server that listens on ``host``."""
    if host in ("0.0.0.0", "::", ""):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def listen_on(host: str, port: int) -> socket.socket:
    """A listening socket; ``port`` 0 takes a free one. Raises :class:`SettingsError` where it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
        # Accepted sockets have it from here: asyncio sets it for sockets that say they are TCP, which these do not, and
        # without it an answer in two pieces waits 40 ms for the client's acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        # create_server hides the resolver's error class, not its number
        if error.errno in (errno.EADDRNOTAVAIL, socket.EAI_NONAME, socket.EAI_AGAIN, socket.EAI_FAIL):
            raise SettingsError(
                f"{host} is no address of this machine ({error.strerror}); choose one with --host or TWINSET_HOST, 0.0.0.0 for all"
            ) from None
        raise SettingsError(
            f"port {port} on {host} cannot be had ({error.strerror}); another server may use it. "
            "Choose another with --port (0 takes a free one)"
        ) from None
