"""Class sets as they occur in masks, and prompts from templates that braces cannot abuse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.augmentations.class_sets import class_sets
from service.augmentations.prompts import Template, read_template, shorten
from service.errors import InvalidRequest
from service.kit.validation import Faults
from tests.service.augmentations.scenes import MASKS


def template(text: str, *, max_chars: int = 200) -> Template:
    faults = Faults()
    read = read_template(text, MASKS, max_chars=max_chars, member="prompt", faults=faults)
    faults.raise_if_any()
    assert read is not None
    return read


def fault(text: str, *, max_chars: int = 200) -> str:
    with pytest.raises(InvalidRequest) as caught:
        template(text, max_chars=max_chars)
    (error,) = caught.value.extra["errors"]
    assert error["pointer"] == "/prompt"
    return str(error["detail"])


def test_sets_are_those_that_occur_most_frequent_first() -> None:
    histograms = np.array(
        [
            [0.5, 0.5, 0, 0],
            [0.2, 0, 0.3, 0.5],
            [0.9, 0.1, 0, 0],
            [1.0, 0, 0, 0],
            [0.99, 0.004, 0.006, 0],
        ]
    )
    found = class_sets(histograms, np.array([False, True, True, True]))
    assert found.sets.tolist() == [[False, True, False, False], [False, False, True, False], [False, False, True, True]]
    assert found.counts.tolist() == [2, 1, 1]
    assert found.of_item.tolist() == [0, 2, 0, -1, 1]
    assert found.classes_of(1) == (2, 3)
    assert found.means(histograms)[0] == pytest.approx([0.7, 0.3, 0, 0])
    assert found.means(histograms)[2] == pytest.approx(histograms[1])


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 30))
def test_no_set_is_empty_or_has_a_class_that_requests_may_not_name(seed: int, masks: int) -> None:
    rng = np.random.default_rng(seed)
    histograms = np.where(rng.random((masks, 5)) < 0.3, rng.random((masks, 5)), 0)
    askable = rng.random(5) < 0.6
    found = class_sets(histograms, askable)
    assert found.sets.any(axis=1).all()
    assert not found.sets[:, ~askable].any()
    assert found.counts.sum() == (found.of_item >= 0).sum()
    for item in range(masks):
        names = set(np.flatnonzero((histograms[item] >= 0.005) & askable))
        assert names == (set(found.classes_of(item)) if found.of_item[item] >= 0 else set())


def test_a_template_is_filled() -> None:
    one = template("A photo of {article} {classes}. {caption}")
    assert one.uses == {"article", "classes", "caption"}
    assert one.fill(["roofs", "roads", "water"], "At noon") == "A photo of a roofs, roads and water. At noon"
    assert one.fill(["island"], None) == "A photo of an island."
    assert template("{{curly}} {classes}").fill(["a", "b"], None) == "{curly} a and b"
    assert template("nothing of either").fill(["a"], "b") == "nothing of either"


def test_braces_in_a_caption_are_text() -> None:
    assert template("{caption}").fill(["x"], "{classes} {0.__class__}\n%s") == "{classes} {0.__class__} %s"


def test_a_long_caption_is_cut_before_the_template() -> None:
    one = template("{caption} with {classes} in it")  # the toy reads 24 tokens
    filled = one.fill(["roofs", "roads"], " ".join(f"w{number}" for number in range(40)))
    assert filled == " ".join(f"w{number}" for number in range(18)) + " with roofs and roads in it"
    assert len(filled.split()) == 24
    tight = template("{caption}!", max_chars=12).fill([], "many long words here")
    assert tight == "many long!"
    assert len(tight) <= 12
    assert template("{caption}, {caption}", max_chars=20).fill([], "many long words") == "many long, many long"
    many = template("{classes}", max_chars=999).fill([f"class{number}" for number in range(99)], None)
    assert many == ", ".join(f"class{number}" for number in range(24)) + ","


@given(st.text(max_size=60), st.integers(0, 8), st.integers(0, 40))
def test_shortened_texts_are_the_beginning(text: str, words: int, chars: int) -> None:
    short = shorten(text, max_words=words, max_chars=chars)
    assert len(short.split()) <= words
    assert len(short) <= chars
    assert " ".join(text.split()).startswith(short)


def test_faults_of_a_template_name_the_placeholders() -> None:
    for wrong, shown in (
        ("{classes.__class__}", "{classes.__class__}"),
        ("{classes[0]}", "{classes[0]}"),
        ("{classes!r}", "{classes!r}"),
        ("{classes:>9999999999}", "{classes:>9999999999}"),
        ("{caption:{classes}}", "{caption:{classes}}"),
        ("{colour}", "{colour}"),
        ("{}", "{}"),
        ("{0}", "{0}"),
    ):
        assert f"{shown} is not a placeholder; the placeholders are {{article}}, {{caption}}, {{classes}}" in fault(
            wrong
        )
    assert "braces do not pair" in fault("a {classes")
    assert "braces do not pair" in fault("a } b")
    assert "is empty" in fault("  \n")
    assert "201 characters; the limit is 200" in fault("x" * 201)
    assert "25 words besides placeholders" in fault("word " * 25 + "{classes}")
    assert "control characters" in fault("a\x00b")
