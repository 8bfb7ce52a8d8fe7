"""How often training sees what: rows by how rare their class set is, timesteps by how noisy they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from workers.data.pixels import clear_rows, repeat_factors
from workers.training.cosimgen_settings import preset_training
from workers.training.export import deviations
from workers.training.loop import EndlessRows, stratified_timesteps


def test_an_endless_run_takes_every_row_once_a_round_in_a_new_order() -> None:
    rows = EndlessRows(7, seed=3)
    rounds = [[rows[7 * n + i] for i in range(7)] for n in range(3)]
    assert all(sorted(each) == list(range(7)) for each in rounds)
    assert rounds[0] != rounds[1] != rounds[2]
    assert [rows[i] for i in (15, 2, 8)] == [rounds[2][1], rounds[0][2], rounds[1][1]]


def test_rows_with_repeats_come_that_often_and_from_any_place_again() -> None:
    repeats = np.array([1.0, 1.0, 2.5, 1.0, 4.0])
    rows = EndlessRows(5, seed=3, repeats=repeats)
    length = 10  # 9.5 rows a round, rounded
    rounds = [[rows[length * n + i] for i in range(length)] for n in range(400)]
    counts = np.array([np.bincount(each, minlength=5) for each in rounds])
    assert (counts >= np.floor(repeats)).all()
    assert (counts <= np.ceil(repeats * length / 9.5)).all()
    np.testing.assert_allclose(counts.mean(axis=0), repeats * length / 9.5, rtol=0.05)
    again = EndlessRows(5, seed=3, repeats=repeats)
    assert [again[i] for i in (3995, 7, 1204)] == [rounds[399][5], rounds[0][7], rounds[120][4]]


def test_repeat_factors_are_those_of_lvis_over_whole_class_sets() -> None:
    present = np.zeros((100, 3), dtype=bool)
    present[:75, 0] = True  # {0}: 75 of 100
    present[75:84, :2] = True  # {0, 1}: 9, though class 0 is common
    present[84:, 2] = True  # {2}: 16
    factors = repeat_factors(present, 0.36)
    np.testing.assert_allclose(factors[[0, 75, 84]], [1.0, np.sqrt(0.36 / 0.09), np.sqrt(0.36 / 0.16)])
    assert (repeat_factors(present[:75], 0.5) == 1.0).all()


def test_pairs_whose_class_set_hangs_on_few_pixels_are_left_out() -> None:
    masks = np.zeros((6, 20, 20), dtype=np.uint8)
    for row, pixels in enumerate((0, 1, 2, 3, 4, 200)):  # 0.5 % is 2 pixels; a margin of 2 is 1 to 4
        masks[row].flat[:pixels] = 1
    queryable = np.array([False, True])
    shares = (masks.reshape(6, -1, 1) == [0, 1]).mean(axis=1)
    assert clear_rows(shares, queryable, 2.0).tolist() == [0, 1, 4, 5]
    assert clear_rows(shares, queryable, 1.0).tolist() == list(range(6))
    assert clear_rows(shares, np.array([True, False]), 2.0).tolist() == list(range(6))
    assert clear_rows(shares[1:4], queryable, 2.5).tolist() == [0, 1, 2]  # all would go, so none does


def test_timesteps_are_one_from_each_stretch_and_uniform_by_themselves() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([stratified_timesteps(4, 1000, generator) for _ in range(2000)])
    assert (drawn.sort(dim=1).values // 250 == torch.arange(4)).all()
    assert drawn[:, 0].float().mean().item() == pytest.approx(499.5, abs=20)
    assert drawn.min() >= 0
    assert drawn.max() <= 999


def test_the_noisiest_fifth_gets_its_share_and_both_parts_stay_uniform() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([stratified_timesteps(16, 1000, generator, noisy_share=0.5) for _ in range(1000)])
    assert ((drawn >= 800).sum(dim=1) == 8).all()
    low, high = drawn[drawn < 800].double(), drawn[drawn >= 800].double()
    assert low.mean().item() == pytest.approx(399.5, abs=4)
    assert high.mean().item() == pytest.approx(899.5, abs=1)
    assert low.std().item() == pytest.approx(800 / 12**0.5, rel=0.01)
    assert high.std().item() == pytest.approx(200 / 12**0.5, rel=0.01)
    same = [
        stratified_timesteps(16, 1000, torch.Generator().manual_seed(1), noisy_share=share)
        for share in (0.2, 0.2 + 1e-9)
    ]
    torch.testing.assert_close(*same, atol=1, rtol=0)


def test_a_card_says_what_was_drawn_more_often() -> None:
    said = " ".join(
        deviations(preset_training("small", 6, repeat_below=0.2, presence_margin=2.0, noisy_share=0.5), None)
    )
    assert "rarer than 20% of the images are drawn sqrt(0.2 / frequency) times as often" in said
    assert "50% of the timesteps are drawn from the noisiest fifth" in said
    assert "covers between 0.25% and 1.00% are left out" in said
    paper = preset_training("paper", 6)
    assert (paper.repeat_below, paper.presence_margin, paper.noisy_share) == (0, 1, 0.2)
    assert "noisiest" not in (told := " ".join(deviations(paper, None)))
    assert "rarer" not in told
