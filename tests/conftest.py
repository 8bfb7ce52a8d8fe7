"""Fixtures that the tests of several packages share."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.webhooks.receiver import Receiver, receiving
from tests.tiny_model import write_tiny_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder, ``tiny@1.0.0``, that ``twinset models add`` takes."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny_model(folder)
    return folder


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver of callbacks that answers 204."""
    with receiving() as receiver:
        yield receiver


def pytest_configure() -> None:
    """A shell without job control starts what it puts into the background deaf to Ctrl-C, and children inherit it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="module")
def a_fresh_accelerator() -> Iterator[None]:
    """Accelerate keeps one state a process, with the precision of whoever came first; each file of tests gets its
    own."""
    yield
    if "accelerate.state" in sys.modules:
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state(reset_partial_state=True)
