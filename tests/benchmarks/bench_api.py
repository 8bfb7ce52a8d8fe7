"""Requests a second of the API against bare FastAPI endpoints that make one Redis call, served by the same uvicorn.

    python tests/benchmarks/bench_api.py [--rounds 6] [--seconds 1] [--connections 8]

Each server is a process of its own, with the uvicorn settings of ``twinset serve`` (one process, access log on), over
one embedded broker; the API has a folder store on the disk of TMPDIR. One more process keeps the connections busy. In
each round every figure is measured right beside those of the bare endpoints, alternately before and after them, so that
other load on the machine affects all of them; ratios are medians over the rounds. Both bare endpoints GET a key:

  threads     a plain function that asks ``redis``, so that FastAPI calls it in its thread pool
  async       an ``async`` function that asks ``redis.asyncio``

Measured against them:

  running     GET /jobs/{id}, eight jobs of 1000 twins, of which 60 of 125 chunks are recorded
  ended       GET /jobs/{id}, eight jobs of 64 twins that have succeeded
  generate-8  POST /generate for 8 twins: one chunk is sent. Each answer's spec is on the disk, fsync'd, before it
  generate    POST /generate for 100 twins: four chunks are sent
  put         spec-sized objects a second that as many threads put into the store: the limit that its disk sets
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from service.broker.live_state import LiveState
from service.jobs.repository import JobRepository
from service.kit.ids import new_job_id
from service.kit.states import JobState
from service.local.broker import EmbeddedBroker
from service.local.children import ChildProcesses
from service.settings import Settings
from service.store import keys
from service.store.opening import open_store
from tests.benchmarks.http_load import Load, LoadClient, load_client
from tests.benchmarks.records import record

_IMPORTS = """
import os, socket, sys
import uvicorn
from fastapi import FastAPI
app = FastAPI()
"""
_SERVE = """
listener = socket.socket(fileno=int(sys.argv[-1]))
uvicorn.Server(uvicorn.Config(app, log_level="info", timeout_graceful_shutdown=3)).run(sockets=[listener])
"""
BARE = {
    "async": """
from redis.asyncio import Redis
client = Redis.from_url(os.environ["TWINSET_BROKER_URL"], decode_responses=True)
@app.get("/bare")
async def bare() -> dict[str, str | None]:
    return {"value": await client.get("bare")}
""",
    "threads": """
from redis import Redis
client = Redis.from_url(os.environ["TWINSET_BROKER_URL"], decode_responses=True)
@app.get("/bare")
def bare() -> dict[str, str | None]:
    return {"value": client.get("bare")}
""",
}
JOBS = 8
ASKED = {"model": "cosimgen-dubai", "classes": ["water", "vegetation"], "seed": 42}


@dataclass(frozen=True)
class Request:
    """A request that is measured."""

    name: str
    method: str
    paths: tuple[str, ...]
    body: Any = None


@dataclass
class Measured:
    """A request's figures over the rounds, each with those of the bare endpoints beside it, by their names."""

    rounds: list[dict[str, Load]] = field(default_factory=list)

    def summary(self, name: str) -> dict[str, float]:
        """Medians of the figures of the server ``name``."""
        loads = [loads[name] for loads in self.rounds]
        return {
            "per_s": round(statistics.median(load.per_s for load in loads), 1),
            "p50_ms": round(statistics.median(load.percentile_ms(50) for load in loads), 2),
            "p99_ms": round(statistics.median(load.percentile_ms(99) for load in loads), 2),
        }

    def ratio(self, bare: str) -> float:
        return round(statistics.median(loads["api"].per_s / loads[bare].per_s for loads in self.rounds), 3)


class Servers:
    """The API and the bare endpoints over one broker, until ``stack`` closes; ``ports`` by their names."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        broker = stack.enter_context(EmbeddedBroker(folder / "data"))
        self.environment = {
            "PYTHONPATH": str(folder),
            "TWINSET_DATA_DIR": str(folder / "data"),
            "TWINSET_BROKER_URL": broker.url,
        }
        self._family = stack.enter_context(ChildProcesses(folder / "logs"))
        self.ports = {"api": self._serve("api", "service.cli", ["serve", "--fd"], "/healthz")}
        for name, source in BARE.items():
            (folder / f"bare_{name}.py").write_text(_IMPORTS + source + _SERVE)
            self.ports[name] = self._serve(name, f"bare_{name}", [], "/bare")
        self.settings = Settings(data_dir=folder / "data", broker_url=broker.url)

    def _serve(self, name: str, module: str, arguments: list[str], first: str) -> int:
        """Starts a server, waits for its first answer and returns its port."""
        with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
            port, fd = listener.getsockname()[1], listener.fileno()
            self._family.start(name, module, [*arguments, str(fd)], environment=self.environment, pass_fds=[fd])
            _get(port, first)
        return port


def _get(port: int, path: str) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
        return bytes(answer.read())


def start_job(port: int, count: int) -> str:
    """Asks for a job and returns its id."""
    body = json.dumps(ASKED | {"count": count}).encode()
    asked = urllib.request.Request(f"http://127.0.0.1:{port}/generate", body, {"Content-Type": "application/json"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked, timeout=60) as answer:
        return str(json.loads(answer.read())["id"])


def lay_out(servers: Servers) -> list[Request]:
    """Makes the jobs that are read, and returns all requests to measure."""
    repository = JobRepository(open_store(servers.settings))
    live_state = LiveState(servers.settings.broker_url)
    running, ended = [], []
    for _ in range(JOBS):
        spec = repository.read_spec(start_job(servers.ports["api"], 1000))
        repository.record_started(spec.job)
        for chunk in range(60):
            repository.chunks.write(record(spec, chunk))
        live_state.publish_progress(spec.job, state=JobState.RUNNING, done=480, rate=3.5)
        running.append(_looked_at(servers, spec.job, "running", 480))
        spec = repository.read_spec(start_job(servers.ports["api"], 64))
        for chunk in range(spec.chunks):
            repository.chunks.write(record(spec, chunk))
        repository.conclude(spec)
        ended.append(_looked_at(servers, spec.job, "succeeded", 64))
    live_state.close()
    return [
        Request("running", "GET", tuple(running)),
        Request("ended", "GET", tuple(ended)),
        Request("generate-8", "POST", ("/generate",), ASKED | {"count": 8}),
        Request("generate", "POST", ("/generate",), ASKED | {"count": 100}),
    ]


def _looked_at(servers: Servers, job: str, state: str, done: int) -> str:
    """The job's path, once the API has read all its records, which it does some at a time."""
    path = f"/jobs/{job}"
    found = json.loads(_get(servers.ports["api"], path))
    while found["failed"] is None:
        found = json.loads(_get(servers.ports["api"], path))
    assert (found["state"], found["done"]) == (state, done), found
    return path


def puts_per_s(servers: Servers, threads: int, seconds: float) -> float:
    """Spec-sized objects a second that ``threads`` put into the store, each in a new folder as a spec is."""
    store = open_store(servers.settings)
    ends_at = time.perf_counter() + seconds

    def put(_: int) -> int:
        count = 0
        while time.perf_counter() < ends_at:
            store.put(keys.job_spec(new_job_id()), bytes(900), if_absent=True)
            count += 1
        return count

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(put, range(threads))) / seconds


def main() -> None:
    """Prints a table, and one line of JSON for machines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--only", action="append", help="only this request; may be repeated")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        servers = Servers(Path(temporary), stack)
        client = stack.enter_context(load_client())
        requests = [each for each in lay_out(servers) if each.name in (options.only or each.name)]
        bare = Request("bare", "GET", ("/bare",))
        measured = {request.name: Measured() for request in requests}
        for number in range(-1, options.rounds):
            for request in requests:
                turns = [("threads", bare), ("api", request), ("async", bare)]
                if number % 2:
                    turns.reverse()
                found = {name: _run(client, servers.ports[name], each, options) for name, each in turns}
                if number >= 0:  # the first round warms all up
                    measured[request.name].rounds.append(found)
        put = puts_per_s(servers, options.connections, options.seconds)
    _show(measured, put)


def _show(measured: dict[str, Measured], put_per_s: float) -> None:
    head = "".join(f"{name:>9}" for name in ("1/s", "p50 ms", "p99 ms"))
    print(f"{'':12}{head}" + "".join(f"{name:>11}: 1/s   ratio" for name in BARE))
    figures: dict[str, Any] = {"put_per_s": round(put_per_s, 1)}
    for name, each in measured.items():
        row = each.summary("api")
        figures[name] = row | {bare: each.summary(bare) | {"ratio": each.ratio(bare)} for bare in BARE}
        print(f"{name:12}{row['per_s']:9.0f}{row['p50_ms']:9.2f}{row['p99_ms']:9.2f}", end="")
        print("".join(f"{figures[name][bare]['per_s']:17.0f}{figures[name][bare]['ratio']:8.2f}" for bare in BARE))
    for bare in BARE:
        rows = [figures[name][bare] for name in measured]
        print(
            f"bare {bare:7}{'':9}"
            + "".join(f"{statistics.median(row[part] for row in rows):9.2f}" for part in ("p50_ms", "p99_ms"))
        )
    print(f"{'put':12}{put_per_s:9.0f}")
    print(json.dumps(figures))


def _run(client: LoadClient, port: int, request: Request, options: argparse.Namespace) -> Load:
    return client.run(
        port, request.method, request.paths, body=request.body, connections=options.connections, seconds=options.seconds
    )


if __name__ == "__main__":
    main()
