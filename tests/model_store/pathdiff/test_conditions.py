"""PathDiff's conditions: hints with edges, the null mask, and how often which condition is null."""

from __future__ import annotations

import torch

from model_store.masks.palette import fibonacci_rgb
from model_store.pathdiff.hint import PathDiffHintConfig, build_hint, mask_hint, null_hint, object_edges
from model_store.pathdiff.unpaired import draw_conditions


def test_edges_are_the_pixels_on_both_sides_of_a_border() -> None:
    labels = torch.tensor([[[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 2, 0], [0, 0, 0, 0]]])
    assert object_edges(labels)[0].int().tolist() == [[0, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1], [0, 1, 1, 0]]
    assert not object_edges(torch.full((1, 5, 5), 3)).any()


def test_touching_instances_of_one_class_have_an_edge_where_they_are_known() -> None:
    indices = torch.ones(1, 2, 4, dtype=torch.int64)
    instances = torch.tensor([[[5, 5, 9, 9], [5, 5, 9, 9]]])
    colours = torch.tensor([[0.0, 0, 0], [1, 1, 1]])
    assert not mask_hint(indices, colours)[0, 3:6].any()
    assert mask_hint(indices, colours, instances)[0, 3].tolist() == [[0, 1, 1, 0], [0, 1, 1, 0]]


def test_a_hint_is_normalised_colours_edges_three_times_and_validity() -> None:
    colours = torch.tensor([[0.0, 0.5, 1.0], [1.0, 0.25, 0.0]])
    hint = mask_hint(torch.tensor([[[0, 1, 255]]]), colours)
    assert hint.shape == (1, 7, 1, 3)
    assert hint[0, :3, 0, 0].tolist() == [-1.0, 0.0, 1.0]
    assert hint[0, :3, 0, 1].tolist() == [1.0, -0.5, -1.0]
    assert hint[0, 6, 0].tolist() == [1.0, 1.0, 0.0]
    assert torch.equal(hint[:, 3], hint[:, 4])
    assert torch.equal(hint[:, 3], hint[:, 5])
    assert torch.equal(hint[0, :, 0, 2], null_hint(1, 1)[0, :, 0, 0]), "a pixel without a label is the null mask's"


def test_the_null_mask_is_far_from_every_label_background_first() -> None:
    for count in (2, 6, 254):
        colours = torch.from_numpy(fibonacci_rgb(count)).float() / 255.0
        colours[0] = 0.0  # black, where the authors' null lies
        colours[-1] = 0.5  # and mid-grey, whose normalised colour is the null mask's own
        labels = torch.arange(count).view(count, 1, 1).expand(count, 4, 4)
        distance = (mask_hint(labels, colours) - null_hint(count, 4)).square().sum(1).sqrt()
        assert distance.min() >= 1.0
        assert distance[0].min() >= 1.9


def test_which_condition_is_null_how_often() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = draw_conditions(200_000, generator)
    assert not (drawn.with_text & drawn.with_mask).any(), "no sample has both: the data is unpaired"
    assert abs(drawn.from_text.float().mean() - 0.5) < 0.005
    assert abs(drawn.with_text.float().mean() - 0.45) < 0.005
    assert abs(drawn.with_mask.float().mean() - 0.45) < 0.005
    assert abs((~drawn.with_text & ~drawn.with_mask).float().mean() - 0.1) < 0.003
    assert (drawn.with_text & ~drawn.from_text).sum() == 0
    assert (drawn.with_mask & drawn.from_text).sum() == 0

    mostly = draw_conditions(200_000, generator, p_split=0.8, p_uncond=0.25)
    assert abs(mostly.with_text.float().mean() - 0.6) < 0.005
    assert abs(mostly.with_mask.float().mean() - 0.15) < 0.005


def test_the_shallow_cnn_has_the_latents_stride() -> None:
    hint = build_hint(PathDiffHintConfig())
    assert hint(null_hint(1, 64)).shape == (1, 192, 16, 16)
    assert PathDiffHintConfig().factor == 4
