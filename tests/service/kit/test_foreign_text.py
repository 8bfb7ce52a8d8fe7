"""Foreign text in Markdown and in cells, and foreign documents: it stays text, and costs little."""

from __future__ import annotations

import re
import time
import tracemalloc

import pytest

from model_store.card.words import check_template, fill_template
from service.kit.cells import cell, read_cell
from service.kit.documents import DocumentRefused, json_cost_bytes, parse_json, parse_yaml
from service.kit.markdown import code, plain

EVIL = [
    "![t](http://evil.example/t.png)",
    "[click](javascript:alert(1))",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "&#x3C;script&#x3E;",
    "a\n\n# I am a heading\n",
    "# heading",
    "- item",
    "1. item",
    "> quote",
    "| a | b |",
    "```\n---\nlicense: mit\n---",
    "\x1b]0;owned\x07",
    "\u202eevil\u2066\u200f",
    "_a_ *b* **c** ~~d~~ $e$ `f`",
    "\\",
    "===",
]


@pytest.mark.parametrize("text", EVIL)
def test_foreign_text_has_no_marks(text: str) -> None:
    for written in (plain(text), code(text)):
        assert "\n" not in written
        assert not re.search(r"[\x00-\x1f\u202a-\u202e\u2066-\u2069\u200f]", written)
    # every special mark is behind an odd number of backslashes
    assert not re.search(r"(?<!\\)(?:\\\\)*[`*\[\]|!#~$<>]", plain(text))
    assert not re.match(r"[-+=]|[0-9]+[.)]", plain(text))
    assert code(text)[1:-1].count("`") == 0


def test_ordinary_text_is_as_it_was() -> None:
    for text in ("Sidewalk, 2nd (old)", "my_class_name", "CC BY 4.0 (https://creativecommons.org/)", "Gebäude 3,5 m"):
        assert plain(text) == text


CELLS = [
    "=cmd|' /C calc'!A0",
    "+1",
    "-1",
    "@SUM(1+1)",
    "\t=1",
    "\n=1",
    "\uff1d1+1",
    "water",
    "'water",
    "'",
    "'=1",
    "''-1",
]


@pytest.mark.parametrize("text", CELLS)
def test_a_spreadsheet_runs_no_cell(text: str) -> None:
    assert cell(text)[0] not in "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"
    assert read_cell(cell(text)) == text


@pytest.mark.parametrize(
    "template", ["{classes:3000000000}", "{classes!r:>9}", "{classes.__class__}", "{0}", "{", "a}", "{classes}" * 5]
)
def test_a_prompt_template_is_no_format_string(template: str) -> None:
    with pytest.raises(ValueError, match=r"is not a placeholder|is in it 5 times"):
        check_template(template)


def test_a_prompt_template_is_filled() -> None:
    assert fill_template(check_template("A {{photo}} of {classes}"), "roads") == "A {photo} of roads"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b"{", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b"1" * 5000, "not valid JSON"),
    ],
)
def test_json_that_cannot_be_read_is_refused(text: bytes, why: str) -> None:
    with pytest.raises(DocumentRefused, match=why):
        parse_json(text)


def test_json_that_would_take_too_much_memory_is_refused_before_it_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.kit.documents.memory_budget_bytes", lambda: 32 << 20)
    text = b'{"x": [' + b"[]," * 1_000_000 + b"[]]}"
    tracemalloc.start()
    with pytest.raises(DocumentRefused, match=r"3000011 bytes of JSON take about \d+ MB of memory.*Divide it"):
        parse_json(text)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    "text", [b"[" + b"[]," * 20_000 + b"1]", b"[" + b"{}," * 20_000 + b"1]", b"[" + b"1.5," * 20_000 + b"1]",
             b"[" + b'"abc",' * 20_000 + b"1]", b"[" + b'{"a":[1.5,2.5]},' * 20_000 + b"1]"]
)  # fmt: skip
def test_the_cost_of_json_is_an_upper_bound(text: bytes) -> None:
    tracemalloc.start()
    parse_json(text)
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert used < json_cost_bytes(text) < 8 * used


def _merges(depth: int) -> str:
    lines = ["l0: &l0 {k: v}"]
    lines += [f"l{n}: &l{n} {{<<: [{', '.join([f'*l{n - 1}'] * 10)}]}}" for n in range(1, depth)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (_merges(10), r"alias \*l0; write it out in full"),
        ("a: &a [x]\nb: [*a, *a]", r"alias \*a; write it out in full"),
        ("a: [" + "1," * 500_000 + "1]", "more than 50000 values"),
        ("a: " + ":".join(["1"] * 300_000), "more than 4096 characters; put it in quotes"),
        ("[" * 5000, "nested more than 64|nested too deeply|not valid YAML"),
        ("- " * 5000 + "x", "nested more than 64"),
        ("a: 2001-99-99", "not valid YAML"),
        ("a: !!python/object/apply:os.system [id]", "not valid YAML"),
        ("a: !!timestamp x", "not valid YAML"),
        ("a: !!int x", "not valid YAML"),
    ],
)
def test_yaml_that_costs_more_than_its_length_is_refused(text: str, why: str) -> None:
    start = time.process_time()
    with pytest.raises(DocumentRefused, match=why):
        parse_yaml(text)
    assert time.process_time() - start < 3


def test_yaml_is_read() -> None:
    assert parse_yaml("train: &t images\nval: *t\nnames: {0: a, 1: no}") == {
        "train": "images",
        "val": "images",
        "names": {0: "a", 1: False},
    }
    assert parse_yaml("names: [no, 1]", plain=True) == {"names": ["no", "1"]}
