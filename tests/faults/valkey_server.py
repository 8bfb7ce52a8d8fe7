"""Valkey server with the embedded broker's configuration and a fixed address, to kill, freeze, empty and restart."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

from service.local import valkey
from tests.waiting import until

_PASSWORD = "not-much-of-a-secret"


class ValkeyServer:
    """A Valkey server with its append-only file in ``folder``, while the ``with`` block lasts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = valkey.free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ValkeyServer:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def url(self, database: int = 0) -> str:
        return f"redis://:{_PASSWORD}@{valkey.HOST}:{self.port}/{database}"

    def start(self) -> None:
        """Starts the server with the data of its append-only file."""
        with (self.folder / "valkey.log").open("ab") as log:
            self._process = subprocess.Popen(
                [valkey.server_program(), "-"], stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=self.folder
            )
        assert self._process.stdin is not None
        with self._process.stdin as pipe:
            pipe.write(valkey.configuration(self.folder, self.port, _PASSWORD).encode())
        until(lambda: valkey.is_ready(self.port, _PASSWORD))

    def kill(self) -> None:
        """Kills the server with SIGKILL, also if it is frozen."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def delete_data(self) -> None:
        """Deletes the server's data while it does not run."""
        assert self._process is None
        shutil.rmtree(self.folder / "appendonlydir")

    def freeze(self) -> None:
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        self._send(signal.SIGCONT)

    def _send(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)
