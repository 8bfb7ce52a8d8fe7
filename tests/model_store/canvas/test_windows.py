"""Windows over a canvas: they cover it with the overlap that was asked for, and their weights sum to exactly 1."""

from __future__ import annotations

import numpy as np
import pytest

from model_store.canvas.window_weights import WindowWeights
from model_store.canvas.windows import Windows, window_starts

CANVASES = [
    (32, 32, 32, 16),
    (33, 32, 32, 16),
    (96, 160, 32, 16),
    (250, 175, 64, 32),
    (97, 41, 16, 0),
    (50, 64, 16, 15),
]


@pytest.mark.parametrize("weights", ["smooth", "uniform"])
@pytest.mark.parametrize(("height", "width", "side", "overlap"), CANVASES)
def test_weights_of_all_windows_sum_to_exactly_one_in_float32_whatever_the_order(
    height: int, width: int, side: int, overlap: int, weights: WindowWeights
) -> None:
    windows = Windows(height, width, side, overlap, weights)
    for order in (range(len(windows)), reversed(range(len(windows)))):
        total = np.zeros((height, width), dtype=np.float32)
        for number in order:
            assert windows.weight(number).dtype == np.float32
            assert windows.weight(number).min() >= 0.0
            total[windows.place(number)] += windows.weight(number)
        assert (total == 1.0).all()


@pytest.mark.parametrize(("height", "width", "side", "overlap"), CANVASES)
def test_windows_begin_and_end_with_the_canvas_and_overlap_as_asked(
    height: int, width: int, side: int, overlap: int
) -> None:
    for length in (height, width):
        starts = window_starts(length, side, overlap)
        assert (starts[0], starts[-1]) == (0, length - side)
        gaps = np.diff(starts)
        assert (gaps > 0).all()
        assert (gaps <= side - overlap).all()
        # evenly spread, and no window more than needed
        assert gaps.size == 0 or gaps.max() - gaps.min() <= 1
        assert len(starts) - 1 == -(-(length - side) // (side - overlap))


def test_one_window_has_the_whole_weight_everywhere() -> None:
    windows = Windows(32, 32, 32, 16)
    assert len(windows) == 1
    assert (windows.weight(0) == 1.0).all()


def test_half_overlapping_windows_count_most_in_their_middle_or_all_the_same() -> None:
    smooth, uniform = (Windows(32, 64, 32, 16, weights) for weights in ("smooth", "uniform"))
    assert [window.start for window in (smooth.place(n)[1] for n in range(3))] == [0, 16, 32]
    middle = smooth.weight(1)[0]
    assert middle[16] > 0.98
    assert middle[0] < 0.02
    assert (uniform.weight(1) == 0.5).all()


def test_windows_on_a_finer_grid_lie_at_the_same_places() -> None:
    coarse = Windows(250, 175, 64, 32)
    fine = coarse.scaled(4)
    assert (fine.tops, fine.side) == (tuple(4 * top for top in coarse.tops), 256)
    total = np.zeros((1000, 700), dtype=np.float32)
    for number in range(len(fine)):
        total[fine.place(number)] += fine.weight(number)
    assert (total == 1.0).all()


def test_a_canvas_below_a_window_and_an_overlap_of_a_window_are_refused() -> None:
    with pytest.raises(ValueError, match="a canvas of 40 x 20 is smaller than its windows of 32 x 32"):
        Windows(20, 40, 32, 16)
    with pytest.raises(ValueError, match="windows of 32 overlap by 0 to 31, not by 32"):
        Windows(64, 64, 32, 32)
