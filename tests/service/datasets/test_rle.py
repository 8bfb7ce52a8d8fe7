"""Run-length encodings match those of pycocotools to the byte; invalid ones are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as cocomask

from service.datasets.rle import RleInvalid, as_runs, compress, decode, decompress, encode, encode_regions

masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=40))


def theirs(mask: np.ndarray) -> str:
    return cocomask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()


@settings(deadline=None)
@given(masks)
def test_a_mask_is_encoded_as_pycocotools_does(mask: np.ndarray) -> None:
    assert compress(encode(mask)) == theirs(mask)


@settings(deadline=None)
@given(masks)
def test_pycocotools_encodings_are_decoded(mask: np.ndarray) -> None:
    assert np.array_equal(decode(decompress(theirs(mask)), *mask.shape).on_canvas(*mask.shape), mask)


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=150))
def test_long_runs_survive_their_string(runs: list[int]) -> None:
    assert decompress(compress(np.array(runs))).tolist() == runs


@settings(deadline=None)
@given(arrays(np.int32, array_shapes(min_dims=2, max_dims=2, max_side=20), elements=st.integers(0, 4)))
def test_regions_are_encoded_in_one_pass_as_one_by_one(regions: np.ndarray) -> None:
    found = encode_regions(regions, 4)
    assert [compress(runs) for runs in found] == [theirs(regions == number) for number in range(1, 5)]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not a complete"),
        ("é", "characters"),
        ("o", "not a complete"),
        ("\x01", "not a complete"),
        ("oooooooo0", "longer than any"),
        ("00P", "not a complete"),
    ],
)
def test_an_invalid_string_is_refused(text: str, why: str) -> None:
    with pytest.raises(RleInvalid, match=why):
        decompress(text)


@settings(deadline=None)
@given(st.text(st.characters(min_codepoint=48, max_codepoint=111), max_size=12), st.integers(1, 9), st.integers(1, 9))
def test_no_string_gives_a_mask_of_another_size(text: str, height: int, width: int) -> None:
    try:
        mask = decode(as_runs(text), height, width).on_canvas(height, width)
    except RleInvalid:
        return
    assert mask.shape == (height, width)


@pytest.mark.parametrize("counts", [[5], [3, -1, 2], [2**40], [1.5, 2.5], None, {"a": 1}, [True, "4"]])
def test_runs_that_do_not_cover_the_image_are_refused(counts: object) -> None:
    with pytest.raises(RleInvalid):
        decode(as_runs(counts), 2, 2)
