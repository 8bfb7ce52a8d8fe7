"""Cost of ten jobs of 100,000 samples to the API and the sweeper: memory, and seconds of each request and sweep.

    python tests/benchmarks/bench_many_jobs.py [--jobs 10] [--count 100000] [--records 3000]

The jobs are requested over HTTP from an API process of its own, read, and cancelled; then requested again, and given
``--records`` chunk records each, written without waiting for the disk. The sweeper runs in this process, over the same
folder store and the embedded broker, without any worker: first as one that has just started, then once more. "with a
gap" has the first chunk of each job missing, so that no sweep can start where the last one ended. Memory is resident
megabytes of the API process, against those after one small job.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import httpx
from redis import Redis

from service.broker import redis_keys
from service.jobs.repository import JobRepository
from service.jobs.spec import JobSpec
from service.local.broker import EmbeddedBroker
from service.local.children import ChildProcess, ChildProcesses
from service.local.stack import listen_on
from service.settings import Settings
from service.store import keys
from service.store.opening import open_store
from tests.benchmarks.records import record
from workers.generation.sweeper import Sweeper
from workers.generation.worker import Worker, open_worker

ASKED = {"model": "cosimgen-dubai", "classes": ["water"], "seed": 42}


class Api:
    """The API in a process of its own."""

    def __init__(self, settings: Settings, stack: ExitStack) -> None:
        environment = {"TWINSET_DATA_DIR": str(settings.data_dir), "TWINSET_BROKER_URL": settings.broker_url}
        family = stack.enter_context(ChildProcesses(settings.data_dir / "logs"))
        with listen_on("127.0.0.1", 0) as listener:
            fd, port = listener.fileno(), listener.getsockname()[1]
            self._child: ChildProcess = family.start(
                "api", "service.cli", ["serve", "--fd", str(fd)], environment=environment, pass_fds=[fd]
            )
        self._client = stack.enter_context(
            httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120.0, trust_env=False)
        )

    def megabytes(self) -> float:
        """Resident memory now."""
        status = Path(f"/proc/{self._child.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1000

    def start(self, count: int) -> tuple[str, float]:
        """Asks for a job: its id, and the seconds of the request."""
        began = time.perf_counter()
        answer = self._client.post("/generate", json=ASKED | {"count": count})
        answer.raise_for_status()
        return str(answer.json()["id"]), time.perf_counter() - began

    def look(self, job: str) -> tuple[dict[str, object], float]:
        """Reads the job: its view, and the seconds of the request."""
        began = time.perf_counter()
        answer = self._client.get(f"/jobs/{job}")
        answer.raise_for_status()
        return answer.json(), time.perf_counter() - began

    def cancel(self, job: str) -> tuple[str, float]:
        """Cancels the job: its state, and the seconds of the request."""
        began = time.perf_counter()
        answer = self._client.post(f"/jobs/{job}/cancel")
        answer.raise_for_status()
        return str(answer.json()["state"]), time.perf_counter() - began


def write_records(settings: Settings, spec: JobSpec, chunks: range) -> None:
    """Writes records as workers do, but straight into the store's folder: flushing each would take minutes."""
    root = settings.data_dir / "store"
    for chunk in chunks:
        path = root / keys.job_chunk(spec.job, chunk)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(record(spec, chunk).model_dump_json())


def sweeps_s(worker: Worker) -> dict[str, float]:
    """Seconds of the first sweep of a sweeper that has just started, and of its next one."""
    sweeper = Sweeper(worker)
    times = []
    for _ in range(2):
        began = time.perf_counter()
        assert sweeper.run_once()
        times.append(time.perf_counter() - began)
    sweeper.stop()
    worker.redis.delete(redis_keys.leader("chunk-sweeper"))
    return {"first_s": times[0], "next_s": times[1]}


def main() -> None:
    """Prints what was measured, and one line of JSON for machines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--records", type=int, default=3000, help="chunk records in each job")
    options = parser.parse_args()
    figures: dict[str, float] = {}

    def report(name: str, value: float, unit: str, what: str) -> None:
        figures[name] = round(value, 4)
        print(f"{what:64}{value:10.{3 if unit == 's' else 1}f} {unit}", flush=True)

    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        broker = stack.enter_context(EmbeddedBroker(folder))
        settings = Settings(data_dir=folder, broker_url=broker.url)
        api = Api(settings, stack)
        repository = JobRepository(open_store(settings))
        worker = open_worker(settings, store=repository.store)
        stack.callback(worker.close)

        first, _ = api.start(8)
        api.look(first)
        api.cancel(first)
        before = api.megabytes()
        print(f"{options.jobs} jobs of {options.count} samples")
        started = [api.start(options.count) for _ in range(options.jobs)]
        jobs = [job for job, _ in started]
        report("post_s", statistics.median(s for _, s in started), "s", "POST /generate, median")
        report("post_worst_s", max(s for _, s in started), "s", "the same, the slowest")
        report("look_s", statistics.median(api.look(job)[1] for job in jobs), "s", "GET /jobs/{id}, median")
        report("during_mb", api.megabytes() - before, "MB", "the API's memory while they live, more than before")
        times = sweeps_s(worker)
        report("sweep_first_s", times["first_s"], "s", "the sweeper's first sweep over them")
        report("sweep_next_s", times["next_s"], "s", "the next one")
        ended = [api.cancel(job) for job in jobs]
        assert {state for state, _ in ended} == {"cancelled"}, ended
        report("cancel_s", statistics.median(s for _, s in ended), "s", "POST /jobs/{id}/cancel, median")
        report("after_mb", api.megabytes() - before, "MB", "the API's memory after, more than before")

        specs = [repository.read_spec(api.start(options.count)[0]) for _ in range(options.jobs)]
        for spec in specs:
            repository.record_started(spec.job)
            write_records(settings, spec, range(1, options.records))
        print(f"{options.records} chunk records in each")
        for name, gap in (("gap", "with a gap"), ("records", "without")):
            if name == "records":
                for spec in specs:
                    write_records(settings, spec, range(1))
            Redis.from_url(broker.url).flushall()
            times = sweeps_s(worker)
            report(f"sweep_{name}_first_s", times["first_s"], "s", f"the sweeper's first sweep, {gap}")
            report(f"sweep_{name}_next_s", times["next_s"], "s", "the next one")
            looks = [api.look(spec.job)[1] for spec in specs]
            report(f"look_{name}_first_s", statistics.median(looks), "s", f"GET /jobs/{{id}}, {gap}: the first, median")
        while any(api.look(spec.job)[0]["failed"] is None for spec in specs):
            pass  # records are read some at a time
        looks = [api.look(spec.job)[1] for spec in specs]
        report("look_read_s", statistics.median(looks), "s", "GET /jobs/{id}, once all records are read")
        report("records_mb", api.megabytes() - before, "MB", "the API's memory, more than before")
        states = [api.cancel(spec.job) for spec in specs]
        assert {state for state, _ in states} == {"cancelling"}, states
        report("cancel_records_s", statistics.median(s for _, s in states), "s", "POST /jobs/{id}/cancel, median")
        report("end_mb", api.megabytes() - before, "MB", "the API's memory after, more than before")
    print(
        json.dumps(
            {
                "jobs": options.jobs,
                "count": options.count,
                "records": options.records,
                "api_mb": round(before, 1),
                **figures,
            }
        )
    )


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()
