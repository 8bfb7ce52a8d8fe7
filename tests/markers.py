"""Which tests are ``slow``, and the promise of the others, which are ``fast``.

A test that starts processes or servers, trains, or waits is slow: its folder or file, a fixture or parameter that it
uses, or ``@pytest.mark.slow`` says so. Every other test is fast, also a new one. Fast tests that take longer than
``FAST_LIMIT_S`` are reported at the end of a run.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from tests.readmes import ROOT

FAST_LIMIT_S = 3.0
SLOW_PLACES = (
    "tests/deploy/test_chart.py",
    "tests/faults",
    "tests/model_store/latent/test_base.py",
    "tests/model_store/test_bundled_models.py",
    "tests/service/api/test_connections.py",
    "tests/service/api/test_hostile_files.py",
    "tests/service/api/test_hostile_names.py",
    "tests/service/api/test_lookups.py",
    "tests/service/api/test_openapi_fuzz.py",
    "tests/service/api/test_service.py",
    "tests/service/api/test_shared_results.py",
    "tests/service/cli/test_keys.py",
    "tests/service/cli/test_serve_and_worker.py",
    "tests/service/exports/test_run.py",
    "tests/service/local",
    "tests/service/sandbox",
    "tests/service/store/test_s3_failures.py",
    "tests/test_end_to_end.py",
    "tests/workers/bulk",
    "tests/workers/evaluation",
    "tests/workers/runtime/test_periodic_task.py",
    "tests/workers/test_main.py",
    "tests/workers/training",
)
SLOW_FIXTURES = frozenset({"live_api", "broker", "broker_url", "moto", "s3_endpoint"})
SLOW_PARAMETERS = frozenset({"s3"})
SLOW_MARKERS = ("gpu", "slow", "soak")

_durations_s: dict[str, float] = defaultdict(float)
_fast: set[str] = set()


def is_slow(item: pytest.Item) -> bool:
    """Whether a test is slow: by marker, fixture, parameter or place."""
    if any(item.get_closest_marker(name) for name in SLOW_MARKERS):
        return True
    if SLOW_FIXTURES & set(getattr(item, "fixturenames", ())):
        return True
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    if SLOW_PARAMETERS & {value for value in parameters if isinstance(value, str)}:
        return True
    return in_slow_place(item.path)


def in_slow_place(path: Path) -> bool:
    return any(path.is_relative_to(ROOT / place) for place in SLOW_PLACES)


def has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Spares ``pytest -m fast`` the imports of the slow places."""
    return True if config.option.markexpr == "fast" and in_slow_place(collection_path) else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks every test as fast or slow, and skips those for a GPU where there is none."""
    for item in items:
        item.add_marker("slow" if is_slow(item) else "fast")
        if item.get_closest_marker("gpu") and not has_gpu():
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))
        if item.get_closest_marker("fast"):
            _fast.add(item.nodeid)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _durations_s[report.nodeid] += report.duration


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Names the tests that are marked fast, by default at that, and were not."""
    late = sorted(((_durations_s[name], name) for name in _fast if _durations_s[name] > FAST_LIMIT_S), reverse=True)
    if late:
        terminalreporter.section(f"fast tests that took over {FAST_LIMIT_S:g} s: make them faster, or mark them slow")
        for seconds, name in late:
            terminalreporter.line(f"{seconds:6.1f} s  {name}")
