"""Embedded stack: broker, API and workers on one machine, over one folder, started and stopped together.

    EmbeddedStack(folder) as stack:   start the broker, which locks the folder; API and workers; wait for the API
    end of the block:                 API and workers get SIGTERM, then SIGKILL; then the broker stops

There are two workers: one makes twins; the other, the bulk worker, needs no torch. A third one, which trains, is
started with the first training.

The folder holds everything (``store/``, ``broker/``, ``logs/``, ``secret``), so a stack that is started on it again
continues where the last one was stopped or killed.
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
from typing import TYPE_CHECKING

from service.errors import NotReady, SettingsError
from service.local.children import ChildProcesses
from service.store.signing import set_aside_emptied
from service.webhooks.secrets import SECRET_FILE

if TYPE_CHECKING:
    from redis import Redis

_READY_TIMEOUT_S = 60.0
_POLL_INTERVAL_S = 0.05
_CRASH_LOOP_S = 20.0
_TRAINING_WORKER = "training-worker"
_WORKERS = {
    "worker": "workers.main",
    "bulk-worker": "workers.bulk.main",
    _TRAINING_WORKER: "workers.trainings.main",
}
"""The workers' modules, by the name of their log file."""
_SECRETS = {
    "secret": "A new one is made: signed links from before are no longer valid",
    SECRET_FILE: "A new one is made: give receivers of webhooks what `twinset webhook-secret` shows",
}
"""The files of secrets in the data folder, and what follows when one is lost."""


class EmbeddedStack:
    """Broker, API, workers and store, while the ``with`` block lasts.

    ``port`` 0 takes a free one. ``grace_s`` is the time in which a worker may finish running chunks when it is stopped;
    the others are made again at the next start. Without ``bulk`` there is no bulk worker, so no datasets, augmentation
    sets or exports. ``settings`` are environment variables for API and workers. ``on_step`` is called with the name of
    each part when it is up. ``notices`` says what was found damaged and set aside.
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
        self.processes = ChildProcesses(self.data_dir / "logs")
        self.notices: list[str] = []
        self._bulk = bulk
        self._settings = dict(settings or {})
        self._on_step = on_step
        self._parts = ExitStack()
        self._redis: Redis | None = None

    def __enter__(self) -> EmbeddedStack:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Starts all parts and waits until the API is ready. If one part fails, all are stopped.

        Raises :class:`NotReady`, :class:`BrokerUnavailable`, or :class:`SettingsError` if the port is taken.
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
        """Raises :class:`NotReady`, with the last lines of its log, if a part has ended by itself."""
        self.processes.check()

    def restart_dead(self) -> str | None:
        """Restarts a worker that has ended, for example without memory; returns a message about it, or None.

        Raises :class:`NotReady` like :meth:`check` if another part has ended, or a worker soon after its start.
        """
        for worker in [child for child in self.processes.children if child.name in _WORKERS]:
            exit_reason = worker.exit_reason()
            if exit_reason is not None and time.monotonic() - worker.started_at >= _CRASH_LOOP_S:
                self.processes.children.remove(worker)
                self._start_worker(worker.name)
                return f"the {worker.name} {exit_reason} and was restarted; its log is {worker.log}"
        self.check()
        return None

    def start_wanted(self) -> None:
        """Starts the training worker once a training waits. Call it now and then."""
        if any(child.name == _TRAINING_WORKER for child in self.processes.children):
            return
        from redis.exceptions import RedisError

        from service.broker.run_queue import TRAIN_QUEUE

        try:
            if self._broker().llen(TRAIN_QUEUE):
                self._start_worker(_TRAINING_WORKER)
        except RedisError:
            return  # the broker's end is told by check()

    def _broker(self) -> Redis:
        from redis import Redis

        if self._redis is None:
            self._redis = Redis.from_url(self.broker_url, socket_timeout=2.0)
            self._parts.callback(self._redis.close)
        return self._redis

    def _start_worker(self, name: str) -> None:
        self.processes.start(name, _WORKERS[name], environment=self._environment())

    def _start(self) -> None:
        from service.local.broker import EmbeddedBroker

        self.data_dir.mkdir(parents=True, exist_ok=True)
        listener = self._parts.enter_context(listen_on(self.host, self.port))
        self.port = listener.getsockname()[1]
        self.url = f"http://{local_address(self.host)}:{self.port}"
        for name, effect in _SECRETS.items():
            aside = set_aside_emptied(self.data_dir / name)
            if aside is not None:
                self.notices.append(f"{self.data_dir / name} was damaged; it is now {aside.name}. {effect}")
        # its lock on the folder keeps a second stack from starting
        broker = self._parts.enter_context(EmbeddedBroker(self.data_dir))
        self.broker_url = broker.url
        if broker.notice:
            self.notices.append(broker.notice)
        self._on_step("broker")

        self._parts.enter_context(self.processes)
        self._parts.callback(self.processes.stop, grace_s=self.grace_s)
        # The worker takes longest to start, so it is first; there is no need to wait for it, since jobs can be queued.
        self._start_worker("worker")
        self.processes.start(
            "api",
            "service.cli",
            ["serve", "--fd", str(listener.fileno())],
            environment=self._environment(),
            pass_fds=[listener.fileno()],
        )
        if self._bulk:
            self._start_worker("bulk-worker")
        # close our copy, so that connections are refused, instead of waiting for ever, after the API has ended
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
            # OpenMP threads that spin while they wait would take the cores from the other processes
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
            time.sleep(_POLL_INTERVAL_S)
        raise NotReady(
            f"the API was not ready within {_READY_TIMEOUT_S:.0f} s; its last answer was: {_detail(answer)}. "
            f"The logs are in {self.processes.log_dir}"
        )


def require_worker_parts() -> None:
    """Raises :class:`NotReady`, which names the missing extra, unless torch is installed."""
    if importlib.util.find_spec("torch") is None:
        raise NotReady("a worker needs PyTorch: pip install 'twinset[all]', or 'twinset[worker]' for a worker alone")


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
    """A listening socket; ``port`` 0 takes a free one. Raises :class:`SettingsError` if it cannot be opened."""
    address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=address_family, backlog=2048)
        # Accepted sockets inherit it. asyncio sets it only for sockets whose protocol is TCP, which these do not say;
        # without it an answer in two pieces waits 40 ms for the client's acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        # create_server hides the resolver's error class, not its number
        if error.errno in (errno.EADDRNOTAVAIL, socket.EAI_NONAME, socket.EAI_AGAIN, socket.EAI_FAIL):
            raise SettingsError(
                f"{host} is not an address of this machine ({error.strerror}); "
                "choose one with --host or TWINSET_HOST, 0.0.0.0 for all"
            ) from None
        raise SettingsError(
            f"cannot listen on port {port} of {host} ({error.strerror}); another server may use it. "
            "Choose another with --port (0 takes a free one)"
        ) from None
