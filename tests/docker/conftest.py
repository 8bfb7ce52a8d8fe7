"""Fixtures of the docker tests: the images, built once, and one composition that the tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from service.client import Twinset
from service.store.base import ObjectStore
from service.store.s3 import S3Store
from tests.docker.engine import IMAGE_TAG, Composition, engine_network, missing_engine
from tests.ports import free_port


@pytest.fixture(scope="session")
def engine() -> None:
    """Skips the tests where no engine answers."""
    if reason := missing_engine():
        pytest.skip(reason)


@pytest.fixture(scope="session")
def composition() -> Composition:
    """The composition of the tests, not yet started, on free ports of loopback."""
    api, store, prometheus = free_port(), free_port(), free_port()
    return Composition(
        "twinset-test",
        {
            "IMAGE_TAG": IMAGE_TAG,
            "API_LISTEN": f"127.0.0.1:{api}",
            "TWINSET_PUBLIC_URL": f"http://127.0.0.1:{api}",
            "STORE_LISTEN": f"127.0.0.1:{store}",
            "TWINSET_S3_PUBLIC_ENDPOINT_URL": f"http://127.0.0.1:{store}",
            "PROMETHEUS_LISTEN": f"127.0.0.1:{prometheus}",
        },
    )


@pytest.fixture(scope="session")
def images(engine: None, composition: Composition) -> None:
    """All images, built by compose."""
    composition("--profile", "observability", "build", timeout_s=1800)


@pytest.fixture(scope="session")
def running(images: None, composition: Composition) -> Iterator[Composition]:
    """The composition, up and healthy; this process is in its network until the end of the tests."""
    composition("down", "--volumes", "--remove-orphans")
    with engine_network():
        try:
            composition("up", "-d", "--no-build", "--wait", timeout_s=300)
            yield composition
        finally:
            composition("--profile", "observability", "down", "--volumes", "--timeout", "5")


@pytest.fixture(scope="session")
def client(running: Composition) -> Iterator[Twinset]:
    with Twinset(running.environment["TWINSET_PUBLIC_URL"]) as client:
        yield client


@pytest.fixture(scope="session")
def store(running: Composition) -> Iterator[ObjectStore]:
    """The store of the composition, with the credentials of its secrets."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", running.secret("s3_access_key_id"))
        patch.setenv("AWS_SECRET_ACCESS_KEY", running.secret("s3_secret_access_key"))
        yield S3Store("twinset", endpoint_url=running.environment["TWINSET_S3_PUBLIC_ENDPOINT_URL"])
