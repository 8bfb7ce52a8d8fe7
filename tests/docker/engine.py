"""Docker for tests: commands of the engine, and the composition of docker/compose.yaml with stand-ins."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.readmes import ROOT

CLONE_NEWNET = 0x40000000
BIN = Path(sys.executable).parent
"""Programs of the tests' environment."""
IMAGE_TAG = "test"
STAND_INS = ROOT / "tests" / "docker" / "compose.yaml"


def run(*command: str, timeout_s: float = 900, **environment: str) -> str:
    """Runs a command and returns what it prints; an AssertionError with all its output if it fails."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout_s, cwd=ROOT, env={**os.environ, **environment}
    )
    assert done.returncode == 0, f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def missing_engine() -> str | None:
    """Why no engine can be used; None if one answers."""
    try:
        run("docker", "version", timeout_s=30)
        run("docker", "compose", "version", timeout_s=30)
    except (OSError, AssertionError, subprocess.TimeoutExpired) as error:
        return f"no docker engine with compose answers; .ci/docker-engine starts one. {str(error).splitlines()[0]}"
    return None


@contextmanager
def engine_network() -> Iterator[None]:
    """Where the engine's published ports are: for .ci/docker-engine's a network namespace of its own."""
    namespace = os.environ.get("DOCKER_NETWORK")
    if not namespace:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as own, open(namespace) as engine:
        assert libc.setns(engine.fileno(), CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        try:
            yield
        finally:
            assert libc.setns(own.fileno(), CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())


@dataclass(frozen=True)
class Composition:
    """One project of docker/compose.yaml and the stand-ins, with ``environment`` for its variables."""

    project: str
    environment: dict[str, str]

    def __call__(self, *arguments: str, timeout_s: float = 900) -> str:
        """Runs ``docker compose``."""
        files = ("-f", "docker/compose.yaml", "-f", str(STAND_INS))
        return run("docker", "compose", "-p", self.project, *files, *arguments, timeout_s=timeout_s, **self.environment)

    def container(self, service: str, number: int = 1) -> str:
        """The name of a service's container."""
        return f"{self.project}-{service}-{number}"

    def inspect(self, service: str, number: int = 1) -> dict[str, Any]:
        """What the engine knows of a service's container."""
        found: list[dict[str, Any]] = json.loads(run("docker", "inspect", self.container(service, number)))
        return found[0]

    def kill(self, service: str) -> float:
        """Sends SIGKILL to a service's first container; returns the time."""
        run("docker", "kill", self.container(service))
        return time.monotonic()

    def start(self, *services: str) -> None:
        """Starts services that were killed or stopped, without what they depend on."""
        self("up", "-d", "--no-deps", "--no-build", "--no-recreate", *services)

    def stop(self, service: str) -> tuple[int, float]:
        """Stops a service; returns its exit code and the seconds that it took."""
        since = time.monotonic()
        self("stop", service)
        return int(self.inspect(service)["State"]["ExitCode"]), time.monotonic() - since

    def secret(self, name: str) -> str:
        """A file of the secrets."""
        return self("exec", "-T", "api", "cat", f"/run/secrets/{name}").strip()


def image(target: str) -> str:
    """The name of an image that the composition builds."""
    return f"twinset-{target}:{IMAGE_TAG}"


def files_below(folder: Path) -> dict[str, bytes]:
    """All files below a folder by their paths."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
