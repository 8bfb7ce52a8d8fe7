"""Preforking server: a process that has imported everything forks the workers and APIs of a test within milliseconds.

    python tests/faults/prefork.py     reads JSON lines {"argv", "environment", "log", "fault"} from standard input;
                                       for each it forks a process and prints its id; at the end of the input it kills
                                       them all

The children run ``workers.main`` or the command line unchanged; only their imports, of some ten seconds, are done in
advance. Torch is imported but not used before a fork, so that the fork cannot break it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_PRELOADED = (
    "boto3",
    "celery.app.trace",
    "celery.apps.worker",
    "celery.concurrency.thread",
    "kombu.transport.redis",
    "model_store.cosimgen.system",
    "redis",
    "service.api.app",
    "service.cli",
    "service.cli.serve_and_worker",
    "service.store.s3",
    "transformers",
    "uvicorn",
    "workers.maintenance.webhook_sender",
    "workers.generation.celery_app",
    "workers.engine.peak",
    "workers.main",
    "workers.models.cache",
    "workers.generation.sweeper",
    "workers.generation.warmup",
    "workers.generation.worker",
    "tests.faults.points",
)


class Prefork:
    """The preforking process, while the ``with`` block lasts."""

    def __enter__(self) -> Prefork:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
            env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert self._read() == "ready"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def start(
        self, argv: Sequence[str], environment: Mapping[str, str], log: Path, fault: Mapping[str, Any] | None
    ) -> int:
        """Starts ``argv`` (``worker ...`` or ``twinset ...``) and returns its process id."""
        request = {"argv": list(argv), "environment": dict(environment), "log": str(log), "fault": fault}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._read())

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        assert line, "the preforking process has ended"
        return line


def _serve() -> None:
    for module in _PRELOADED:
        __import__(module)
    # the kernel reaps the children; tests check by process id whether one lives
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # by descriptor: an id may be another process's, or a thread's, once the child is gone
    children: list[int] = []
    print("ready", flush=True)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _run_child(**json.loads(line))
        with suppress(ProcessLookupError):  # it has ended already
            children = [*_living(children), os.pidfd_open(pid)]
        print(pid, flush=True)
    for child in _living(children):
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(child, signal.SIGKILL)
    # skip the normal exit, which takes seconds
    os._exit(0)


def _living(children: list[int]) -> list[int]:
    """Those of the process descriptors whose process runs; the others are closed."""
    ended, _, _ = select.select(children, [], [], 0)
    for child in ended:
        os.close(child)
    return [child for child in children if child not in ended]


def _run_child(argv: list[str], environment: dict[str, str], log: str, fault: dict[str, Any] | None) -> None:
    """Runs the program in the forked child; never returns."""
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ.clear()
        os.environ.update(environment)
        if fault is not None:
            from tests.faults.points import ProcessFault, install

            install(ProcessFault(**fault))
        code = _run(argv)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _run(argv: list[str]) -> int:
    program, *arguments = argv
    if program == "worker":
        from workers.main import main

        return main(arguments)
    from service.cli import main as command_line

    sys.argv = argv
    command_line()
    return 0


if __name__ == "__main__":
    _serve()
