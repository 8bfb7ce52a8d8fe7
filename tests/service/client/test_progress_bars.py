"""Bars are shown where somebody watches, and nowhere else."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from service.client.progress_bars import Board
from service.jobs.repository import JobRepository
from tests.service.api.support import finish
from tests.service.cli.conftest import LiveApi
from tests.service.client.both import BothClients
from tests.service.client.stub import API, Stub


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard error passes for a terminal."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")


def test_nothing_is_shown_where_nobody_watches(
    live_api: LiveApi, make_client: BothClients, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    job = make_client(live_api.url).generate(model="aerial", classes=["water"], count=3)
    job.download(tmp_path / "twins")
    assert "Fetching" not in "".join(capfd.readouterr())


@pytest.mark.usefixtures("watched")
def test_a_bar_says_what_is_done_of_how_much(
    live_api: LiveApi, make_client: BothClients, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    live_api.worker.idle = True
    job = make_client(live_api.url).generate(model="aerial", classes=["water"], count=3)
    repository = JobRepository(live_api.store)
    later = threading.Timer(0.4, lambda: finish(repository, repository.read_spec(job.id)))
    later.start()
    job.download(tmp_path / "twins")
    later.join()
    told = capsys.readouterr()
    for words in ("Making", "waiting for a worker", "3 of 3 twins", "Fetching", "6 of 6 files"):
        assert words in told.err, words
    assert told.out == "", "what a script prints is its own"
    job.download(tmp_path / "again", progress=False)
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("watched")
def test_several_bars_stand_below_one_another(capsys: pytest.CaptureFixture[str]) -> None:
    board = Board()
    with (
        board.bar(True, "One", "bytes") as one,
        board.bar(True, "Other", "items") as other,
        board.bar(False, "Unwanted", "items") as none,
    ):
        one.show(1_500_000, 3_000_000)
        one.advance(500_000)
        other.show(2, None, "[bold]as it is[/bold]")
        none.show(1, 2)
        none.advance(1)
    text = capsys.readouterr().err
    assert "2.0 MB of 3.0 MB" in text
    assert "2 items" in text
    assert "[bold]as it is[/bold]" in text
    assert "Unwanted" not in text
    with board.bar(True, "A later one", "items") as later:
        later.show(1, 1)
    assert "A later one" in capsys.readouterr().err


@pytest.mark.usefixtures("watched")
def test_what_a_run_is_at_is_shown_while_its_count_stands_still(
    make_client: BothClients, capsys: pytest.CaptureFixture[str]
) -> None:
    stub = Stub(looks=2, doing="round 1: 37 of 90 made")
    client = make_client(API, "tws_key", transport=stub.transport())
    client.augment(dataset="tiles", model="aerial", count=300).wait()
    assert "round 1: 37 of 90 made" in capsys.readouterr().err
