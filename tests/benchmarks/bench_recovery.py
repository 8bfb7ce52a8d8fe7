"""Seconds from a worker's SIGKILL to the last twin of the job it was working on, by part.

    python tests/benchmarks/bench_recovery.py [--kills 6] [--steps 150]

Two real worker processes with the default lease and sweep share jobs of four chunks of the tests' tiny model, over the
embedded broker's server and a folder store. In each round one of the two is killed from outside, at another moment of a
job, and replaced once the job has ended. Printed for each kill, in seconds from it:

  at       the moment of the kill, after the job's first lease was acquired
  lost     chunks that the killed worker had claimed
  leader   whether it was the sweeper's leader, whose lock must then expire too
  lease    until the last lease of its chunks has expired
  found    until the sweeper has sent the last of them again
  claimed  until the other worker has claimed that
  made     until the job's last twin is recorded
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from redis import Redis

from service.broker import redis_keys
from service.jobs.spec import JobSpec
from service.settings import Settings
from service.store.folder import FolderStore
from tests.faults.prefork import Prefork
from tests.faults.rig import FAST_SETTINGS, Process, Rig
from tests.faults.valkey_server import ValkeyServer
from tests.tiny_model import write_tiny_model
from tests.waiting import until

CHUNKS, CHUNK_SIZE = 4, 2
PARTS = ("lease", "found", "claimed", "made")
_POLL_INTERVAL_S = 0.01
_LONGEST_S = 120.0


@dataclass
class Job:
    """A running job, as Redis and the store show it."""

    rig: Rig
    spec: JobSpec
    redis: Redis

    def leased(self) -> set[int]:
        """The chunks with a lease, of a live worker or a dead one."""
        with self.redis.pipeline(transaction=False) as pipe:
            for chunk in range(CHUNKS):
                pipe.exists(redis_keys.lease(self.spec.job, chunk))
            return {chunk for chunk, there in enumerate(pipe.execute()) if there}

    def sent(self) -> set[int]:
        """The chunks that a worker or its sweeper has sent and no worker has claimed."""
        return {int(chunk) for chunk in self.redis.zrange(redis_keys.sent(self.spec.job), 0, -1)}

    def epochs(self) -> dict[int, int]:
        """How often each chunk has been claimed."""
        return {int(chunk): int(epoch) for chunk, epoch in self.redis.hgetall(redis_keys.epochs(self.spec.job)).items()}

    def recorded(self) -> set[int]:
        return {chunk for chunk, _ in self.rig.repository.chunks.recorded(self.spec.job)}


@dataclass
class Kill:
    """One kill, and the seconds from it to each part of the recovery."""

    at: float
    lost: int
    was_leader: bool = False
    seconds: dict[str, float] = field(default_factory=dict)


def start_job(rig: Rig, redis: Redis, steps: int, seed: int) -> Job:
    """A job that has been accepted, with all its chunks in the queue."""
    count = CHUNKS * CHUNK_SIZE
    return Job(rig, rig.accept(send=CHUNKS, count=count, chunk_size=CHUNK_SIZE, steps=steps, seed=seed), redis)


def kill_one(job: Job, victim: Process, after_s: float) -> Kill | None:
    """Kills ``victim`` ``after_s`` after the job's first lease and follows the job; None if the victim had no chunk."""
    until(job.leased)
    time.sleep(after_s)
    leader = job.redis.get(redis_keys.leader("chunk-sweeper"))
    victim.kill()
    died = time.monotonic()
    at_death, recorded = job.leased(), job.recorded()
    seconds: dict[int, dict[str, float]] = {chunk: {} for chunk in at_death - recorded}
    was_leader = False

    def record(chunk: int, part: str) -> None:
        seconds[chunk].setdefault(part, time.monotonic() - died)

    while not job.rig.repository.read_summary(job.spec.job):
        assert time.monotonic() - died < _LONGEST_S, "the job does not end"
        leased, sent, epochs, recorded = job.leased(), job.sent(), job.epochs(), job.recorded()
        for chunk in seconds:
            claimed = epochs.get(chunk, 0) > 1
            if claimed or chunk not in leased:
                record(chunk, "lease")
            if claimed or chunk in sent:
                record(chunk, "found")
                was_leader |= job.redis.get(redis_keys.leader("chunk-sweeper")) != leader
            if claimed:
                record(chunk, "claimed")
            if claimed and chunk in recorded:
                record(chunk, "made")
        time.sleep(_POLL_INTERVAL_S)
    # The other worker's own chunks were claimed once. A record may appear with the summary, between two polls.
    lost = {chunk: parts for chunk, parts in seconds.items() if "claimed" in parts}
    for chunk in lost:
        record(chunk, "made")
    if not lost:
        return None
    last: Callable[[str], float] = lambda part: max(parts[part] for parts in lost.values())  # noqa: E731
    return Kill(after_s, len(lost), was_leader, {part: last(part) for part in PARTS})


def make_rig(folder: Path, prefork: Prefork, broker_url: str) -> Rig:
    """A folder store with the tiny model in it, and workers with the default lease, sweep and concurrency."""
    write_tiny_model(folder / "tiny")
    usual = Settings()
    store = FolderStore(folder / "store", link_secret=b"0123456789abcdef", public_url="http://127.0.0.1:8000")
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    environment = inherited | FAST_SETTINGS | {
        "TWINSET_LEASE_S": str(usual.lease_s),
        "TWINSET_SWEEP_INTERVAL_S": str(usual.sweep_interval_s),
        "TWINSET_CHUNKS_IN_FLIGHT": str(usual.chunks_in_flight),
        "TWINSET_WORKER_THREADS": str(usual.worker_threads),
        "OMP_NUM_THREADS": "1",
        "TWINSET_DATA_DIR": str(folder),
        "TWINSET_BROKER_URL": broker_url,
        "TWINSET_STORE_URL": (folder / "store").as_uri(),
        "TWINSET_LINK_SECRET": "0123456789abcdef",
    }  # fmt: skip
    return Rig(folder, store, folder / "tiny", environment, prefork)


def undisturbed_s(rig: Rig, redis: Redis, steps: int) -> float:
    """Seconds that the job takes when no worker is killed."""
    job, began = start_job(rig, redis, steps, seed=0), time.monotonic()
    rig.wait_until_ended(job.spec)
    return time.monotonic() - began


def start_worker(rig: Rig, redis: Redis) -> Process:
    """A worker that has loaded the model: short jobs are run until it has made a chunk of one."""
    process = rig.worker()

    def has_made_one() -> bool:
        job = start_job(rig, redis, steps=10, seed=0)
        rig.wait_until_ended(job.spec)
        return any(f"-{process.pid}-" in record.worker for record in rig.repository.chunks.iterate(job.spec.job))

    until(has_made_one)
    return process


def main() -> None:
    """Prints a line a kill, medians and the worst, and one line of JSON for machines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--steps", type=int, default=150, help="of the jobs: how long their chunks take")
    options = parser.parse_args()
    kills: list[Kill] = []
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        server = stack.enter_context(ValkeyServer(folder / "broker"))
        rig = make_rig(folder, stack.enter_context(Prefork()), server.url(0))
        stack.callback(rig.end)
        redis = stack.enter_context(Redis.from_url(server.url(0), decode_responses=True))
        workers = [start_worker(rig, redis), start_worker(rig, redis)]
        alone_s = undisturbed_s(rig, redis, options.steps)
        print(f"undisturbed, the job takes {alone_s:.1f} s")
        print(f"{'at':>6}{'lost':>6}{'leader':>8}" + "".join(f"{part:>8}" for part in PARTS))
        round_number = 0
        while len(kills) < options.kills:
            round_number += 1
            # Spread over the job's life, and beyond renewals of its leases where it lasts long enough.
            after_s = alone_s * ((round_number * 0.37) % 0.9)
            # The survivor becomes the sweeper's leader; each worker is killed twice in succession, so that not every
            # victim is the leader.
            victim = round_number // 2 % 2
            kill = kill_one(start_job(rig, redis, options.steps, seed=round_number), workers[victim], after_s)
            workers[victim] = start_worker(rig, redis)
            if kill is None:
                continue
            kills.append(kill)
            row = "".join(f"{kill.seconds[part]:8.1f}" for part in PARTS)
            print(f"{kill.at:6.1f}{kill.lost:6d}{'yes' if kill.was_leader else 'no':>8}{row}", flush=True)
    median = {part: statistics.median(kill.seconds[part] for kill in kills) for part in PARTS}
    worst = {part: max(kill.seconds[part] for kill in kills) for part in PARTS}
    for name, figures in (("median", median), ("worst", worst)):
        print(f"{name:20}" + "".join(f"{figures[part]:8.1f}" for part in PARTS))
    rounded = {
        name: {part: round(s, 2) for part, s in figures.items()}
        for name, figures in (("median", median), ("worst", worst))
    }
    print(json.dumps({"kills": len(kills), "undisturbed_s": round(alone_s, 2), **rounded}))


if __name__ == "__main__":
    main()
