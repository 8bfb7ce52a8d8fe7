"""CoSimGen's losses against hand computations, and which networks each one trains."""

from __future__ import annotations

import pytest
import torch

from model_store.cosimgen.discriminator import Discriminator
from model_store.cosimgen.losses import (
    adversarial_loss,
    alignment_loss,
    derangement,
    discriminator_loss,
    triplet_loss,
)


def test_the_triplet_by_hand() -> None:
    text = torch.tensor([[0.0, 0.0], [3.0, 0.0]])
    classes = torch.tensor([[1.0, 0.0], [3.0, 0.5]])
    # sample 0: |z-c|^2 = 1, |z-c~|^2 = 9.25 -> 0;  sample 1: 0.25 - 4 + 1 < 0 -> 0
    different = torch.tensor([[1.0, 0], [0, 1]])
    assert triplet_loss(text, classes, different, torch.tensor([1, 0])).item() == 0.0
    # anchors far from their classes: 0: 9.25 - 1 + 1 = 9.25;  1: 4 - 0.25 + 1 = 4.75
    swapped = classes.flip(0)
    assert triplet_loss(text, swapped, different, torch.tensor([1, 0])).item() == pytest.approx((9.25 + 4.75) / 2)


def test_identical_class_sets_are_no_negatives_and_cannot_hold_the_loss_up() -> None:
    text = torch.zeros(4, 2)
    classes = torch.tensor([[0.0, 0], [0, 0], [0, 0], [5, 0]])
    multi_hot = torch.tensor([[1.0, 0], [1, 0], [1, 0], [0, 1]])
    # 0 and 1 are given each other's identical set; 2 gets 3 (25 away: 0 loss); 3 gets 2: 25 - 0 + 1
    loss = triplet_loss(text, classes, multi_hot, torch.tensor([1, 0, 3, 2]))
    assert loss.item() == pytest.approx((0 + 26) / 2)
    all_same = triplet_loss(text, classes, torch.ones(4, 2), torch.tensor([1, 0, 3, 2]))
    assert all_same.item() == 0.0


@pytest.mark.parametrize("count", [2, 3, 16])
def test_a_derangement_moves_everything_and_is_a_permutation(count: int) -> None:
    seen = set()
    for seed in range(50):
        order = derangement(count, torch.Generator().manual_seed(seed))
        assert sorted(order.tolist()) == list(range(count))
        assert not (order == torch.arange(count)).any()
        seen.add(tuple(order.tolist()))
    assert count == 2 or len(seen) > 1


def test_alignment_moves_the_text_and_leaves_the_classes() -> None:
    text, classes = torch.tensor([[1.0, 2.0]], requires_grad=True), torch.tensor([[0.0, 0.0]], requires_grad=True)
    loss = alignment_loss(text, classes)
    loss.backward()
    assert loss.item() == 5.0
    assert text.grad is not None
    assert text.grad.tolist() == [[2.0, 4.0]]
    assert classes.grad is None


def test_the_adversarial_loss_is_one_minus_d() -> None:
    assert adversarial_loss(torch.tensor([0.0, torch.logit(torch.tensor(0.8)).item()])).item() == pytest.approx(
        1 - 0.65
    )


def test_the_discriminator_learns_to_tell_shifted_pairs_from_real_ones() -> None:
    torch.manual_seed(0)
    discriminator = Discriminator(width=8, layers=2)
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=1e-2)
    real, fake = torch.randn(16, 6, 16, 16) * 0.1 + 0.5, torch.randn(16, 6, 16, 16) * 0.1 - 0.5
    first = None
    for _ in range(60):
        logits = discriminator(torch.cat([real, fake]))
        loss = discriminator_loss(logits[:16], logits[16:])
        first = first or loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert first == pytest.approx(0.693, abs=0.05)
    assert loss.item() < 0.05
    assert torch.sigmoid(discriminator(real)).min() > 0.5 > torch.sigmoid(discriminator(fake)).max()
