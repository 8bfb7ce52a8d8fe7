"""How problems look on a terminal."""

from __future__ import annotations

import pytest

from service.cli.console import show_problem
from service.errors import SettingsError


def test_what_a_value_holds_is_shown_to_the_letter(capsys: pytest.CaptureFixture[str]) -> None:
    show_problem(SettingsError("TWINSET_DEVICE=cuda:x: write [bold]cpu[/]").problem())
    assert "TWINSET_DEVICE=cuda:x: write [bold]cpu[/]" in capsys.readouterr().err


def test_faults_are_told_once_each_below_a_detail_that_says_more(capsys: pytest.CaptureFixture[str]) -> None:
    faults = [{"pointer": "/count", "detail": "count is 0"}, {"pointer": "/eta", "detail": "eta is 2"}]
    show_problem({"title": "The request is not valid", "detail": "count is 0; eta is 2", "errors": faults})
    assert capsys.readouterr().err.splitlines() == [
        "Error: The request is not valid",
        "  /count count is 0",
        "  /eta eta is 2",
    ]
    show_problem({"title": "The request is not valid", "detail": "2 things are wrong", "errors": faults})
    assert capsys.readouterr().err.count("2 things are wrong") == 1
