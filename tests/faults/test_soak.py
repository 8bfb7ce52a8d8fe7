"""Soak test: workers, API, broker and store fail at random while thousands of tiny samples are made and checked.

    pytest -m soak tests/faults/test_soak.py -s

The two workers are of different makes (float32 and bfloat16), so whatever one of them writes late differs from what the
other one recorded.

Environment: SOAK_SAMPLES (default 2000); SOAK_SEED (0), the seed of the faults; SOAK_STORE, s3 (default, behind the
faulty proxy) or folder.
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
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from service.jobs.garbage import remove_strays
from service.kit.ids import is_job_id
from service.local import valkey
from service.store.s3 import S3Store
from tests.faults.checker import Findings, Reference, check_job, either
from tests.faults.conftest import REFERENCE_COUNT, MakeRig
from tests.faults.proxy import Proxy, Rule, StoreFault
from tests.faults.rig import OTHER_MAKE, Process, Rig
from tests.faults.test_store_faults import CREDENTIALS, bucket, moto, proxy  # noqa: F401
from tests.faults.valkey_server import ValkeyServer

SAMPLES = int(os.environ.get("SOAK_SAMPLES", "2000"))
SEED = int(os.environ.get("SOAK_SEED", "0"))
STORE = os.environ.get("SOAK_STORE", "s3")
MAKES: tuple[dict[str, str], ...] = ({}, OTHER_MAKE)
"""The environment of each worker."""
MAX_OPEN_JOBS = 4
PAUSE_S = (0.5, 4.0)
MAX_DURATION_S = 3600.0


class SoakClients(threading.Thread):
    """Submits jobs until ``SAMPLES`` samples are accepted; failed requests are repeated with the same key."""

    def __init__(self, url: str, rng: random.Random) -> None:
        super().__init__(daemon=True)
        self._url, self._random = url, rng
        self.accepted: dict[str, int] = {}
        self.open: set[str] = set()
        self.refusals = 0

    @property
    def samples(self) -> int:
        return sum(self.accepted.values())

    def run(self) -> None:
        with httpx.Client(base_url=self._url, trust_env=False, timeout=30) as client:
            while self.samples < SAMPLES or self.open:
                if self.samples < SAMPLES and len(self.open) < MAX_OPEN_JOBS:
                    self._submit(client)
                else:
                    self._look(client)

    def _submit(self, client: httpx.Client) -> None:
        count = self._random.randint(8, REFERENCE_COUNT)
        layout = self._random.choice(("objects", "shards"))
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


class FaultInjector:
    """Injects random faults into workers, API, broker and store, and repairs what they broke."""

    def __init__(self, rig: Rig, server: ValkeyServer, proxy: Proxy, port: int, rng: random.Random) -> None:  # noqa: F811
        self._ground, self._server, self._proxy, self._port, self._random = rig, server, proxy, port, rng
        self.workers: list[Process] = [rig.worker(environment=make) for make in MAKES]
        self.api, self.url = rig.api(port=port)
        self.injected: Counter[str] = Counter()
        kinds: dict[str, tuple[int, Callable[[], None]]] = {
            "worker killed": (5, self._kill_worker),
            "worker stopped past its lease": (5, self._stop_worker),
            "API killed": (2, self._kill_api),
            "FLUSHALL": (2, lambda: self._ground.redis.flushall()),
            "broker killed": (1, self._kill_broker),
            "broker killed and its data lost": (1, lambda: self._kill_broker(data_lost=True)),
            "broker frozen": (1, self._freeze_broker),
        }
        if STORE == "s3":
            kinds["store at fault"] = (4, self._inject_store_faults)
        self._kinds = kinds

    def inject(self) -> None:
        """Injects one random fault."""
        names = list(self._kinds)
        name = self._random.choices(names, [self._kinds[name][0] for name in names])[0]
        self._kinds[name][1]()
        self.injected[name] += 1

    def _kill_worker(self) -> None:
        place = self._random.randrange(len(MAKES))
        self.workers[place].kill()
        self.workers[place] = self._ground.worker(environment=MAKES[place])

    def _stop_worker(self) -> None:
        worker = self._random.choice(self.workers)
        worker.send(signal.SIGSTOP)
        time.sleep(self._random.uniform(1.0, 4.0))
        worker.send(signal.SIGCONT)

    def _kill_api(self) -> None:
        self.api.kill()
        self.api, _ = self._ground.api(port=self._port)

    def _kill_broker(self, *, data_lost: bool = False) -> None:
        self._server.kill()
        if data_lost:
            self._server.delete_data()
        time.sleep(self._random.uniform(0, 2.0))
        self._server.start()

    def _freeze_broker(self) -> None:
        self._server.freeze()
        time.sleep(self._random.uniform(1.0, 5.0))
        self._server.thaw()

    def _inject_store_faults(self) -> None:
        kinds = self._random.sample(list(StoreFault), 3)
        self._proxy.rules = [Rule(fault, chance=self._random.uniform(0.05, 0.5), seconds=0.5) for fault in kinds]
        time.sleep(self._random.uniform(1.0, 5.0))
        self._proxy.rules = []


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[ValkeyServer]:
    with ValkeyServer(tmp_path / "broker") as server:
        yield server


@pytest.fixture
def soak_rig(make_rig: MakeRig, own_server: ValkeyServer, bucket: str, proxy: Proxy, moto: str) -> Iterator[Rig]:  # noqa: F811
    """A rig with the chosen store; chunks may be retried 100 times, since the faults are not theirs."""
    environment = {"TWINSET_MAX_CHUNK_ATTEMPTS": "100", "TWINSET_CHUNK_SIZE": "4", "TWINSET_LOG_LEVEL": "warning"}
    store = None
    if STORE == "s3":
        environment |= CREDENTIALS | {"TWINSET_STORE_URL": f"s3://{bucket}", "TWINSET_S3_ENDPOINT_URL": proxy.url}
        store = S3Store(bucket, endpoint_url=moto)
    rig = make_rig(own_server.url(), store=store, environment=environment)
    yield rig
    rig.end()


@pytest.mark.soak
def test_random_faults_lose_and_duplicate_nothing(
    soak_rig: Rig,
    own_server: ValkeyServer,
    proxy: Proxy,  # noqa: F811
    reference: Reference,
    other_reference: Reference,
) -> None:
    rng = random.Random(SEED)
    injector = FaultInjector(soak_rig, own_server, proxy, valkey.free_port(), rng)
    clients = SoakClients(injector.url, random.Random(SEED + 1))
    started = time.monotonic()
    clients.start()
    while clients.is_alive():
        assert time.monotonic() - started < MAX_DURATION_S, f"{clients.samples} accepted, open: {clients.open}"
        clients.join(rng.uniform(*PAUSE_S))
        if clients.is_alive():
            injector.inject()
    proxy.rules = []
    seconds = time.monotonic() - started

    # jobs whose acceptance no client heard of count, too
    jobs = [job for job in soak_rig.store.list_folders("jobs/") if is_job_id(job)]
    findings, strays, makes = Findings(), 0, Counter[str]()
    for job in jobs:
        spec = soak_rig.repository.read_spec(job)
        summary = soak_rig.wait_until_ended(spec, timeout_s=120)
        strays += remove_strays(soak_rig.repository, spec, summary, datetime.now(UTC), max_objects=10**6)
        check_job(soak_rig.store, spec, either(reference, other_reference), findings)
        makes.update(record.dtype for record in soak_rig.repository.chunks.iterate(job))
    print(
        f"\n{seconds:.0f} s, seed {SEED}, {STORE}: {clients.samples} samples accepted in {len(clients.accepted)} jobs"
    )
    print("; ".join(f"{name}: {times}" for name, times in sorted(injector.injected.items())))
    print("store: " + "; ".join(f"{fault.value}: {times}" for fault, times in proxy.injected.items() if times))
    faults = {
        "lost": findings.lost,
        "duplicated": findings.duplicated,
        "damaged": findings.damaged,
        "differing": findings.differing,
    }
    counts = ", ".join(f"{len(names)} {fault}" for fault, names in faults.items())
    print(f"chunks recorded by make: {dict(makes)}; {strays} objects of attempts that do not count were swept")
    print(f"{clients.refusals} requests not answered; {findings.samples} samples in the store: {counts}")
    assert set(clients.accepted) <= set(jobs)
    assert findings.clean, findings
