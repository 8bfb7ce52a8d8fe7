"""Fixtures: a client of either kind, and the real API on a port."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.service.cli.conftest import live_api
from tests.service.client.both import BothClients

__all__ = ["live_api"]


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TWINSET_PUBLIC_URL", "TWINSET_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=["sync", "async"])
def make_client(request: pytest.FixtureRequest) -> Iterator[BothClients]:
    """Makes clients: ``Twinset`` in one run of the test, ``AsyncTwinset`` in the other."""
    with BothClients(request.param) as clients:
        yield clients
