"""The store misbehaves while it is used and in mid-job: nothing is lost or doubled, and nothing has to be restarted."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator

import httpx
import pytest

from service.errors import ObjectDamaged, ObjectExists, StoreUnavailable
from service.store.s3 import S3Store
from tests.faults.checker import Reference
from tests.faults.conftest import Lay
from tests.faults.ground import Ground
from tests.faults.proxy import Fault, Proxy, Rule
from tests.faults.server import Server
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


ONCE = [Rule(fault, times=1, seconds=1.0) for fault in Fault if fault is not Fault.TORN]


@pytest.mark.parametrize("rule", ONCE, ids=lambda rule: rule.fault.value)
def test_any_fault_that_comes_once_is_got_over(store: S3Store, proxy: Proxy, rule: Rule) -> None:
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
        assert proxy.happened[rule.fault] > 0
    proxy.rules = []
    with pytest.raises(ObjectExists):
        store.put("a/only-once", b"z", if_absent=True)
    assert store.get("a/only-once") == b"y"


@pytest.mark.parametrize("fault", [Fault.RESET_AFTER, Fault.ERROR_AFTER, Fault.TIMEOUT_AFTER])
def test_a_conditional_write_none_of_whose_answers_came_is_read_back(
    bucket: str, proxy: Proxy, moto: str, fault: Fault
) -> None:
    store = S3Store(bucket, endpoint_url=proxy.url, timeout_s=0.4, attempts=1)
    proxy.rules = [Rule(fault, method="PUT", seconds=1.0)]
    assert store.put("a/mine", b"mine", if_absent=True).size == 4
    S3Store(bucket, endpoint_url=moto).put("a/another", b"another's", if_absent=True)
    with pytest.raises(ObjectExists):
        store.put("a/another", b"mine", if_absent=True)
    proxy.rules = [Rule(Fault.RESET_BEFORE, method="PUT")]
    with pytest.raises(StoreUnavailable):
        store.put("a/nobody's", b"mine", if_absent=True)
    proxy.rules = [Rule(fault, method="PUT", seconds=1.0), Rule(Fault.INTERNAL_ERROR)]
    with pytest.raises(StoreUnavailable):
        store.put("a/unknown", b"mine", if_absent=True)


def test_bytes_that_come_torn_are_read_again_and_never_given_out(store: S3Store, proxy: Proxy) -> None:
    store.put("a/b", b"x" * 5000)
    proxy.rules = [Rule(Fault.TORN, method="GET", times=2)]
    assert store.get("a/b") == b"x" * 5000
    proxy.rules = [Rule(Fault.TORN, method="GET")]
    with pytest.raises(ObjectDamaged, match="a/b in s3://.* came with sha256 .* read it again"):
        store.get("a/b")
    pieces = store.stream("a/b", chunk_bytes=1000)
    got = []
    with pytest.raises(ObjectDamaged):
        got.extend(pieces)
    assert sum(map(len, got)) == 4000, "a stream never ends as if it were whole"


@pytest.fixture
def s3_ground(lay: Lay, server: Server, bucket: str, proxy: Proxy, moto: str) -> Iterator[Ground]:
    """A ground over S3: its processes go through the proxy, the test does not."""
    environment = CREDENTIALS | {"TWINSET_STORE_URL": f"s3://{bucket}", "TWINSET_S3_ENDPOINT_URL": proxy.url}
    url = server.url(15)
    ground = lay(url, store=S3Store(bucket, endpoint_url=moto), environment=environment)
    ground.redis.flushdb()
    yield ground
    ground.end()


def test_a_job_amid_faults_of_every_kind(s3_ground: Ground, proxy: Proxy, reference: Reference) -> None:
    proxy.rules = [Rule(fault, chance=0.02, seconds=0.3) for fault in Fault if fault is not Fault.TIMEOUT_AFTER]
    for _ in range(2):
        s3_ground.worker()
    spec = s3_ground.accept(count=16)
    s3_ground.ended(spec)
    assert sum(proxy.happened.values()) > 5, proxy.happened
    s3_ground.check(spec, reference)


def test_a_store_that_takes_nothing_is_said_so_while_it_lasts_and_the_job_then_goes_on(
    s3_ground: Ground, proxy: Proxy, reference: Reference
) -> None:
    worker = s3_ground.worker()
    _, url = s3_ground.api()
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
        proxy.rules = [Rule(Fault.INTERNAL_ERROR, method="PUT", part="/images/")]
        spec = s3_ground.accept(count=4)
        stalled = until(lambda: client.get(f"/jobs/{spec.job}").json()["stalled"])
        assert "InternalError" in stalled["reason"]
        assert stalled["since"]
        with client.stream("GET", f"/jobs/{spec.job}/events") as events:
            assert any('"trouble":{"since"' in line for line in itertools.islice(events.iter_lines(), 6))
        proxy.rules = []
        s3_ground.check(spec, reference)
        view = client.get(f"/jobs/{spec.job}").json()
    assert (view["state"], view["stalled"]) == ("succeeded", None)
    assert worker.alive
    assert "Traceback" not in worker.said
