"""Tests of a faulty store, alone and during jobs: nothing is lost or duplicated, and no process has to restart."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator

import httpx
import pytest

from service.errors import ObjectDamaged, ObjectExists, StoreUnavailable
from service.store.s3 import S3Store
from tests.faults.checker import Reference
from tests.faults.conftest import MakeRig
from tests.faults.proxy import Proxy, Rule, StoreFault
from tests.faults.rig import Rig
from tests.faults.valkey_server import ValkeyServer
from tests.waiting import until

_numbers = itertools.count()
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test-secret",
    "AWS_CONFIG_FILE": "/nonexistent",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
}


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(moto: str, monkeypatch: pytest.MonkeyPatch) -> str:
    import boto3

    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    name = f"faults-{next(_numbers)}"
    boto3.client("s3", endpoint_url=moto, region_name="us-east-1").create_bucket(Bucket=name)
    return name


@pytest.fixture
def proxy(moto: str) -> Iterator[Proxy]:
    with Proxy(moto, seed=5) as proxy:
        yield proxy


@pytest.fixture
def store(bucket: str, proxy: Proxy) -> S3Store:
    return S3Store(bucket, endpoint_url=proxy.url, timeout_s=0.4)


ONCE = [Rule(fault, times=1, seconds=1.0) for fault in StoreFault if fault is not StoreFault.TORN]


@pytest.mark.parametrize("rule", ONCE, ids=lambda rule: rule.fault.value)
def test_every_operation_survives_one_fault(store: S3Store, proxy: Proxy, rule: Rule) -> None:
    uses = (
        lambda: store.put("a/b", b"x" * 5000).size == 5000,
        lambda: store.get("a/b") == b"x" * 5000,
        lambda: b"".join(store.stream("a/b", chunk_bytes=100)) == b"x" * 5000,
        lambda: store.head("a/b") is not None,
        lambda: [info.key for info in store.list("a/")] == ["a/b"],
        lambda: list(store.list_folders("")) == ["a"],
        lambda: store.put("a/only-once", b"y", if_absent=True).size == 1,
        lambda: store.delete("a/b") is None,
    )
    for use in uses:
        proxy.rules = [Rule(rule.fault, times=1, seconds=rule.seconds)]
        assert use()
        assert proxy.injected[rule.fault] > 0
    proxy.rules = []
    with pytest.raises(ObjectExists):
        store.put("a/only-once", b"z", if_absent=True)
    assert store.get("a/only-once") == b"y"


@pytest.mark.parametrize("fault", [StoreFault.RESET_AFTER, StoreFault.ERROR_AFTER, StoreFault.TIMEOUT_AFTER])
def test_a_conditional_write_without_an_answer_is_read_back(
    bucket: str, proxy: Proxy, moto: str, fault: StoreFault
) -> None:
    store = S3Store(bucket, endpoint_url=proxy.url, timeout_s=0.4, attempts=1)
    proxy.rules = [Rule(fault, method="PUT", seconds=1.0)]
    assert store.put("a/mine", b"mine", if_absent=True).size == 4
    S3Store(bucket, endpoint_url=moto).put("a/another", b"another's", if_absent=True)
    with pytest.raises(ObjectExists):
        store.put("a/another", b"mine", if_absent=True)
    proxy.rules = [Rule(StoreFault.RESET_BEFORE, method="PUT")]
    with pytest.raises(StoreUnavailable):
        store.put("a/nobody's", b"mine", if_absent=True)
    proxy.rules = [Rule(fault, method="PUT", seconds=1.0), Rule(StoreFault.INTERNAL_ERROR)]
    with pytest.raises(StoreUnavailable):
        store.put("a/unknown", b"mine", if_absent=True)


def test_damaged_bytes_are_read_again_and_never_returned(store: S3Store, proxy: Proxy) -> None:
    store.put("a/b", b"x" * 5000)
    proxy.rules = [Rule(StoreFault.TORN, method="GET", times=2)]
    assert store.get("a/b") == b"x" * 5000
    proxy.rules = [Rule(StoreFault.TORN, method="GET")]
    with pytest.raises(ObjectDamaged, match=r"a/b in s3://.* was read with sha256 .* read it again"):
        store.get("a/b")
    pieces = store.stream("a/b", chunk_bytes=1000)
    got = []
    with pytest.raises(ObjectDamaged):
        got.extend(pieces)
    assert sum(map(len, got)) == 4000, "a stream never ends as if it were whole"


@pytest.fixture
def s3_rig(make_rig: MakeRig, server: ValkeyServer, bucket: str, proxy: Proxy, moto: str) -> Iterator[Rig]:
    """A rig over S3: its processes go through the proxy, the test does not."""
    environment = CREDENTIALS | {"TWINSET_STORE_URL": f"s3://{bucket}", "TWINSET_S3_ENDPOINT_URL": proxy.url}
    url = server.url(15)
    rig = make_rig(url, store=S3Store(bucket, endpoint_url=moto), environment=environment)
    rig.redis.flushdb()
    yield rig
    rig.end()


def test_a_job_succeeds_despite_all_kinds_of_faults(s3_rig: Rig, proxy: Proxy, reference: Reference) -> None:
    proxy.rules = [
        Rule(fault, chance=0.02, seconds=0.3) for fault in StoreFault if fault is not StoreFault.TIMEOUT_AFTER
    ]
    for _ in range(2):
        s3_rig.worker()
    spec = s3_rig.accept(count=16)
    s3_rig.wait_until_ended(spec)
    assert sum(proxy.injected.values()) > 5, proxy.injected
    s3_rig.check(spec, reference)


def test_a_job_is_stalled_while_the_store_refuses_writes_and_then_continues(
    s3_rig: Rig, proxy: Proxy, reference: Reference
) -> None:
    worker = s3_rig.worker()
    _, url = s3_rig.api()
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
        proxy.rules = [Rule(StoreFault.INTERNAL_ERROR, method="PUT", part="/images/")]
        spec = s3_rig.accept(count=4)
        stalled = until(lambda: client.get(f"/jobs/{spec.job}").json()["stalled"])
        assert "InternalError" in stalled["reason"]
        assert stalled["since"]
        with client.stream("GET", f"/jobs/{spec.job}/events") as events:
            assert any('"stalled":{"since"' in line for line in itertools.islice(events.iter_lines(), 6))
        proxy.rules = []
        s3_rig.check(spec, reference)
        view = client.get(f"/jobs/{spec.job}").json()
    assert (view["state"], view["stalled"]) == ("succeeded", None)
    assert worker.alive
    assert "Traceback" not in worker.log_text
