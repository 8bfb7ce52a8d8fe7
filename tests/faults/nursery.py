"""Processes by the dozen: one that has imported everything forks the workers and APIs of a test, each in a moment.

    python tests/faults/nursery.py     a JSON line on its standard input each, {"argv", "environment", "log", "fault"};
                                       the new process's id on its standard output; at the end of the input all are
                                       killed

What runs is ``workers.main`` or the command line as they are; only their imports, of some ten seconds, are done before.
Nothing of torch has been used when a process forks, so that there is nothing a fork could break.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_FIRST = (
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


class Nursery:
    """The forking process, while the ``with`` block lasts."""

    def __enter__(self) -> Nursery:
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
        asked = {"argv": list(argv), "environment": dict(environment), "log": str(log), "fault": fault}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return int(self._read())

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        assert line, "the nursery has ended"
        return line


def _serve() -> None:
    for module in _FIRST:
        __import__(module)
    # the kernel buries the children; whether one lives is asked by its id
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    born: list[int] = []
    print("ready", flush=True)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _live(**json.loads(line))
        born.append(pid)
        print(pid, flush=True)
    for pid in born:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    # nothing here is worth the seconds that the usual end takes
    os._exit(0)


def _live(argv: list[str], environment: dict[str, str], log: str, fault: dict[str, Any] | None) -> None:
    """The child: becomes the program, and never returns."""
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
            from tests.faults.points import Fault, install

            install(Fault(**fault))
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
