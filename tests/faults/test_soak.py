"""The soak: workers, API, broker and store fail at random while thousands of tiny samples are made; then all is
counted.

pytest -m soak tests/faults/test_soak.py -s SOAK_SAMPLES (2000) how many; SOAK_SEED (0) which faults, in which order;
SOAK_STORE (s3) s3, behind the faulty proxy, or folder
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from service.kit.ids import is_job_id
from service.local import valkey
from service.store.s3 import S3Store
from tests.faults.checker import Findings, Reference, check_job
from tests.faults.conftest import REFERENCE_COUNT, Lay
from tests.faults.ground import Ground, Process
from tests.faults.proxy import Fault, Proxy, Rule
from tests.faults.server import Server
from tests.faults.test_store_faults import CREDENTIALS, bucket, moto, proxy  # noqa: F401
from tests.waiting import until

SAMPLES = int(os.environ.get("SOAK_SAMPLES", "2000"))
SEED = int(os.environ.get("SOAK_SEED", "0"))
STORE = os.environ.get("SOAK_STORE", "s3")
WORKERS = 2
JOBS_AT_ONCE = 4
QUIET_S = (0.5, 4.0)
LONGEST_S = 3600.0


class Clients(threading.Thread):
    """Asks for samples until ``SAMPLES`` are accepted; asks again, with the same key, whatever an answer fails by."""

    def __init__(self, url: str, chances: random.Random) -> None:
        super().__init__(daemon=True)
        self._url, self._chances = url, chances
        self.accepted: dict[str, int] = {}
        self.open: set[str] = set()
        self.refusals = 0

    @property
    def samples(self) -> int:
        return sum(self.accepted.values())

    def run(self) -> None:
        with httpx.Client(base_url=self._url, trust_env=False, timeout=30) as client:
            while self.samples < SAMPLES or self.open:
                if self.samples < SAMPLES and len(self.open) < JOBS_AT_ONCE:
                    self._submit(client)
                else:
                    self._look(client)

    def _submit(self, client: httpx.Client) -> None:
        count = self._chances.randint(8, REFERENCE_COUNT)
        layout = self._chances.choice(("objects", "shards"))
        body = {
            "model": "tiny",
            "classes": ["land"],
            "count": count,
            "seed": 11,
            "steps": 4,
            "guidance_scale": 2.0,
            "layout": layout,
        }
        key = {"Idempotency-Key": f"soak-{len(self.accepted)}"}
        while True:
            with suppress(httpx.TransportError):
                answer = client.post("/generate", json=body, headers=key)
                if answer.status_code in (200, 202):
                    self.accepted[answer.json()["id"]] = count
                    self.open.add(answer.json()["id"])
                    return
                assert answer.status_code >= 500, answer.text
            self.refusals += 1
            time.sleep(0.1)

    def _look(self, client: httpx.Client) -> None:
        for job in list(self.open):
            with suppress(httpx.TransportError):
                answer = client.get(f"/jobs/{job}")
                if answer.status_code == 200 and answer.json()["finished_at"]:
                    self.open.discard(job)
                assert answer.status_code == 200 or answer.status_code >= 500, answer.text
        time.sleep(0.2)


class Storm:
    """Faults by kind, each with what heals the part that it broke."""

    def __init__(self, ground: Ground, server: Server, proxy: Proxy, port: int, chances: random.Random) -> None:  # noqa: F811
        self._ground, self._server, self._proxy, self._port, self._chances = ground, server, proxy, port, chances
        self.workers: list[Process] = [ground.worker() for _ in range(WORKERS)]
        self.api, self.url = ground.api(port=port)
        self.happened: Counter[str] = Counter()
        kinds: dict[str, tuple[int, Callable[[], None]]] = {
            "worker killed": (5, self._kill_worker),
            "worker stopped past its lease": (2, self._stop_worker),
            "API killed": (2, self._kill_api),
            "FLUSHALL": (2, lambda: self._ground.redis.flushall()),
            "broker killed": (1, self._kill_broker),
            "broker killed and emptied": (1, lambda: self._kill_broker(emptied=True)),
            "broker frozen": (1, self._freeze_broker),
        }
        if STORE == "s3":
            kinds["store at fault"] = (4, self._upset_store)
        self._kinds = kinds

    def unleash(self) -> None:
        """One fault, by chance."""
        names = list(self._kinds)
        name = self._chances.choices(names, [self._kinds[name][0] for name in names])[0]
        self._kinds[name][1]()
        self.happened[name] += 1

    def _kill_worker(self) -> None:
        place = self._chances.randrange(WORKERS)
        self.workers[place].kill()
        self.workers[place] = self._ground.worker()

    def _stop_worker(self) -> None:
        worker = self._chances.choice(self.workers)
        worker.send(signal.SIGSTOP)
        time.sleep(self._chances.uniform(1.0, 4.0))
        worker.send(signal.SIGCONT)

    def _kill_api(self) -> None:
        self.api.kill()
        self.api, _ = self._ground.api(port=self._port)

    def _kill_broker(self, *, emptied: bool = False) -> None:
        self._server.kill()
        if emptied:
            self._server.empty()
        time.sleep(self._chances.uniform(0, 2.0))
        self._server.start()

    def _freeze_broker(self) -> None:
        self._server.freeze()
        time.sleep(self._chances.uniform(1.0, 5.0))
        self._server.thaw()

    def _upset_store(self) -> None:
        kinds = self._chances.sample(list(Fault), 3)
        self._proxy.rules = [Rule(fault, chance=self._chances.uniform(0.05, 0.5), seconds=0.5) for fault in kinds]
        time.sleep(self._chances.uniform(1.0, 5.0))
        self._proxy.rules = []


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "broker") as server:
        yield server


@pytest.fixture
def soaked(lay: Lay, own_server: Server, bucket: str, proxy: Proxy, moto: str) -> Iterator[Ground]:  # noqa: F811
    """A ground of the kind that was asked for; no chunk is ever given up, for the storm is at fault and not the
    chunk."""
    environment = {"TWINSET_MAX_CHUNK_ATTEMPTS": "100", "TWINSET_CHUNK_SIZE": "4", "TWINSET_LOG_LEVEL": "warning"}
    store = None
    if STORE == "s3":
        environment |= CREDENTIALS | {"TWINSET_STORE_URL": f"s3://{bucket}", "TWINSET_S3_ENDPOINT_URL": proxy.url}
        store = S3Store(bucket, endpoint_url=moto)
    ground = lay(own_server.url(), store=store, environment=environment)
    yield ground
    ground.end()


@pytest.mark.soak
def test_a_storm_loses_nothing_and_doubles_nothing(
    soaked: Ground,
    own_server: Server,
    proxy: Proxy,  # noqa: F811
    reference: Reference,
) -> None:
    chances = random.Random(SEED)
    storm = Storm(soaked, own_server, proxy, valkey.free_port(), chances)
    clients = Clients(storm.url, random.Random(SEED + 1))
    started = time.monotonic()
    clients.start()
    while clients.is_alive():
        assert time.monotonic() - started < LONGEST_S, f"{clients.samples} accepted, open: {clients.open}"
        clients.join(chances.uniform(*QUIET_S))
        if clients.is_alive():
            storm.unleash()
    proxy.rules = []
    seconds = time.monotonic() - started

    # also those jobs count whose acceptance nobody heard of
    jobs = [job for job in soaked.store.list_folders("jobs/") if is_job_id(job)]
    findings = Findings()
    for job in jobs:
        spec = soaked.repository.read_spec(job)
        until(lambda: soaked.repository.read_summary(job), timeout_s=120)
        check_job(soaked.store, spec, reference, findings)
    print(
        f"\n{seconds:.0f} s, seed {SEED}, {STORE}: {clients.samples} samples accepted in {len(clients.accepted)} jobs"
    )
    print("; ".join(f"{name}: {times}" for name, times in sorted(storm.happened.items())))
    print("store: " + "; ".join(f"{fault.value}: {times}" for fault, times in proxy.happened.items() if times))
    print(f"{clients.refusals} requests not answered; {findings.samples} samples in the store: {len(findings.lost)} lost, "
          f"{len(findings.doubled)} doubled, {len(findings.damaged)} damaged, {len(findings.differing)} differing")  # fmt: skip
    assert set(clients.accepted) <= set(jobs)
    assert findings.clean, findings
