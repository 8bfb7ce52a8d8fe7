"""Progress bars are shown in a terminal, and nowhere else."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from service.client.progress_bars import ProgressDisplay
from service.jobs.repository import JobRepository
from tests.service.api.support import finish
from tests.service.cli.conftest import LiveApi
from tests.service.client.both import BothClients
from tests.service.client.stub import API, Stub


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard error looks like a terminal."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")


def test_nothing_is_shown_without_a_terminal(
    live_api: LiveApi, make_client: BothClients, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    job = make_client(live_api.url).generate(model="aerial", classes=["water"], count=3)
    job.download(tmp_path / "twins")
    assert "Fetching" not in "".join(capfd.readouterr())


@pytest.mark.usefixtures("terminal")
def test_a_bar_shows_done_of_total(
    live_api: LiveApi, make_client: BothClients, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    live_api.worker.idle = True
    job = make_client(live_api.url).generate(model="aerial", classes=["water"], count=3)
    repository = JobRepository(live_api.store)
    later = threading.Timer(0.4, lambda: finish(repository, repository.read_spec(job.id)))
    later.start()
    job.download(tmp_path / "twins")
    later.join()
    printed = capsys.readouterr()
    for words in ("Generating", "waiting for a worker", "3 of 3 twins", "Fetching", "6 of 6 files"):
        assert words in printed.err, words
    assert printed.out == "", "standard output belongs to the script"
    job.download(tmp_path / "again", progress=False)
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("terminal")
def test_several_bars_are_shown_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    progress_display = ProgressDisplay()
    with (
        progress_display.bar(True, "One", "bytes") as one,
        progress_display.bar(True, "Other", "items") as other,
        progress_display.bar(False, "Unwanted", "items") as none,
    ):
        one.update(1_500_000, 3_000_000)
        one.advance(500_000)
        other.update(2, None, "[bold]as it is[/bold]")
        none.update(1, 2)
        none.advance(1)
    text = capsys.readouterr().err
    assert "2.0 MB of 3.0 MB" in text
    assert "2 items" in text
    assert "[bold]as it is[/bold]" in text
    assert "Unwanted" not in text
    with progress_display.bar(True, "A later one", "items") as later:
        later.update(1, 1)
    assert "A later one" in capsys.readouterr().err


@pytest.mark.usefixtures("terminal")
def test_the_activity_of_a_run_is_shown_while_its_count_stands_still(
    make_client: BothClients, capsys: pytest.CaptureFixture[str]
) -> None:
    stub = Stub(polls=2, doing="round 1: 37 of 90 made")
    client = make_client(API, "tws_key", transport=stub.transport())
    client.augment(dataset="tiles", model="aerial", count=300).wait()
    assert "round 1: 37 of 90 made" in capsys.readouterr().err
