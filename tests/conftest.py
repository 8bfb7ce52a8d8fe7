"""Fixtures that the tests of several packages share."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.markers import (
    pytest_collection_modifyitems,
    pytest_ignore_collect,
    pytest_runtest_logreport,
    pytest_terminal_summary,
)
from tests.service.webhooks.receiver import Receiver, receiving
from tests.tiny_model import write_tiny_model

__all__ = [
    "pytest_collection_modifyitems",
    "pytest_ignore_collect",
    "pytest_runtest_logreport",
    "pytest_terminal_summary",
]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder, ``tiny@1.0.0``, that ``twinset models add`` takes."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny_model(folder)
    return folder


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver of webhooks that answers 204."""
    with receiving() as receiver:
        yield receiver


def pytest_configure() -> None:
    """Restores Ctrl-C: a shell without job control lets its background processes, and their children, ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="module")
def fresh_accelerator_state() -> Iterator[None]:
    """A fresh state of Accelerate for each test file: the process's one state keeps the first caller's precision."""
    yield
    if "accelerate.state" in sys.modules:
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state(reset_partial_state=True)
