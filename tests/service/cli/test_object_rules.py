"""Options for rules on objects: numbers and ranges by class, added to those of the request file."""

from __future__ import annotations

from typing import Any

import click
import pytest

from service.cli.object_rules import rules, with_rules

CONTEXT, OPTION = click.Context(click.Command("augment")), click.Option(["--objects"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, {}),
        ("nucleus=5", {"nucleus": 5}),
        ("nucleus=5..20, small vessel=0", {"nucleus": [5, 20], "small vessel": 0}),
        ("nucleus=1.5,cell=10..24.5", {"nucleus": 1.5, "cell": [10, 24.5]}),
    ],
)
def test_numbers_and_ranges_by_class(text: str | None, expected: dict[str, Any]) -> None:
    assert rules(CONTEXT, OPTION, text) == expected


@pytest.mark.parametrize("text", ["nucleus", "nucleus=", "=4", "nucleus=many", "nucleus=1..2..3", "a=1,a=2"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match=r"not of the form A=5,B=2\.\.8|twice"):
        rules(CONTEXT, OPTION, text)


def test_options_are_added_to_the_request() -> None:
    request = {"count": 3, "objects": {"cell": {"count": 2}}}
    assert with_rules(request, {"cell": [1, 4]}, {"cell": 1.5, "nucleus": [8, 16]}) == {
        "count": 3,
        "objects": {"cell": {"count": [1, 4], "size": 1.5}, "nucleus": {"size": [8, 16]}},
    }
    assert request["objects"] == {"cell": {"count": 2}}
    assert "objects" not in with_rules({"count": 3}, {}, {})
