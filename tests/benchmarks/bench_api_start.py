"""Start-up time and memory of the API, against an empty FastAPI application.

    python tests/benchmarks/bench_api_start.py [--rounds 5]

Both are started alternately, in one run, by the same uvicorn in a fresh process; the figure to follow is their ratio.
Time is from the process's start to the first answer; memory is the resident set after it. A bare interpreter is timed
for comparison.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from service.local.children import ChildProcesses

EMPTY_API = """
import socket, sys
import uvicorn
from fastapi import FastAPI
app = FastAPI()
@app.get("/healthz")
async def health() -> dict[str, str]:
    return {"status": "ok"}
uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[socket.socket(fileno=int(sys.argv[-1]))])
"""


def measure(folder: Path, module: str, arguments: list[str]) -> tuple[float, float]:
    """Seconds to the first answer of ``/healthz``, and resident megabytes at that moment."""
    environment = {
        "PYTHONPATH": str(folder),
        "TWINSET_DATA_DIR": str(folder / "data"),
        "TWINSET_LOG_LEVEL": "warning",
    }
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with ChildProcesses(folder / "logs") as family, socket.create_server(("127.0.0.1", 0)) as listener:
        port, fd = listener.getsockname()[1], listener.fileno()
        began = time.perf_counter()
        child = family.start("api", module, [*arguments, str(fd)], environment=environment, pass_fds=[fd])
        # The socket listens already, so this waits in its queue for the first answer.
        with opener.open(f"http://127.0.0.1:{port}/healthz", timeout=60) as answer:
            answer.read()
        seconds = time.perf_counter() - began
        status = Path(f"/proc/{child.pid}/status").read_text()
    return seconds, int(status.split("VmRSS:")[1].split()[0]) / 1000


def interpreter_seconds() -> float:
    """Seconds that Python itself takes to start and end."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return time.perf_counter() - began


def main() -> None:
    """Prints the medians and their ratios, and one line of JSON for machines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "empty_api.py").write_text(EMPTY_API)
        twinset, empty, bare = [], [], []
        for _ in range(rounds):
            twinset.append(measure(folder, "service.cli", ["serve", "--fd"]))
            empty.append(measure(folder, "empty_api", []))
            bare.append(interpreter_seconds())
    seconds, megabytes = (statistics.median(values) for values in zip(*twinset, strict=True))
    empty_seconds, empty_megabytes = (statistics.median(values) for values in zip(*empty, strict=True))
    print(f"{'':22}{'start, s':>10}{'memory, MB':>12}")
    print(f"{'twinset serve':22}{seconds:10.2f}{megabytes:12.0f}")
    print(f"{'an empty FastAPI':22}{empty_seconds:10.2f}{empty_megabytes:12.0f}")
    print(f"{'ratio':22}{seconds / empty_seconds:10.2f}{megabytes / empty_megabytes:12.2f}")
    print(f"{'a bare interpreter':22}{statistics.median(bare):10.2f}")
    figures = {
        "api_start_s": round(seconds, 3),
        "api_rss_mb": round(megabytes, 1),
        "start_ratio": round(seconds / empty_seconds, 3),
        "rss_ratio": round(megabytes / empty_megabytes, 3),
        "rounds": rounds,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
