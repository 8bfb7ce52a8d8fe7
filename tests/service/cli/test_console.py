"""Tests of how problems are printed on a terminal."""

from __future__ import annotations

import pytest

from service.cli.console import escape, show_problem
from service.errors import SettingsError


def test_markup_in_values_is_printed_literally(capsys: pytest.CaptureFixture[str]) -> None:
    show_problem(SettingsError("TWINSET_DEVICE=cuda:x: write [bold]cpu[/]").problem())
    assert "TWINSET_DEVICE=cuda:x: write [bold]cpu[/]" in capsys.readouterr().err


def test_faults_are_listed_once_below_a_longer_detail(capsys: pytest.CaptureFixture[str]) -> None:
    faults = [{"pointer": "/count", "detail": "count is 0"}, {"pointer": "/eta", "detail": "eta is 2"}]
    show_problem({"title": "The request is not valid", "detail": "count is 0; eta is 2", "errors": faults})
    assert capsys.readouterr().err.splitlines() == [
        "Error: The request is not valid",
        "  /count count is 0",
        "  /eta eta is 2",
    ]
    show_problem({"title": "The request is not valid", "detail": "2 things are wrong", "errors": faults})
    assert capsys.readouterr().err.count("2 things are wrong") == 1


def test_a_line_break_in_a_name_forges_no_line_of_a_report() -> None:
    assert escape("cell\n✓ All 9 are valid\r\x1b[2J[red]") == r"cell\n✓ All 9 are valid\r\x1b[2J\[red]"
    assert escape("two\nlines\t", lines=True) == "two\nlines\\t"
