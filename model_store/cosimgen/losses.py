"""CoSimGen's losses (section 3.7): diffusion, Textron's triplet, and the adversarial pair."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

TRIPLET_MARGIN = 1.0
ADVERSARIAL_WEIGHT = 0.1
"""beta of eq. 6."""


def diffusion_loss(output: Tensor, target: Tensor) -> Tensor:
    """Eq. 3: the mean squared error of the network's output against the noise (or the velocity)."""
    return F.mse_loss(output.float(), target.float())


def derangement(count: int, generator: torch.Generator) -> Tensor:
    """A permutation of ``count`` >= 2 without a fixed point, ``(count,)`` int64: a random cycle (Sattolo)."""
    order = torch.randperm(count, generator=generator)
    result = torch.empty(count, dtype=torch.int64)
    result[order] = order.roll(1)
    return result


def triplet_loss(text: Tensor, classes: Tensor, multi_hot: Tensor, negatives: Tensor) -> Tensor:
    """Eq. 4 with the text embedding as the anchor: the mean of max(0, |Z - C|^2 - |Z - C~|^2 + 1) over usable triplets.

    text, classes: ``(B, D)``. multi_hot ``(B, K)``; negatives ``(B,)`` int64, a derangement. A negative with the same
    class set as its anchor is left out: it would hold the loss at 1 or more for ever. Zero if none is usable.
    """
    positive = (text - classes).square().sum(dim=1)
    negative = (text - classes[negatives]).square().sum(dim=1)
    usable = (multi_hot != multi_hot[negatives]).any(dim=1)
    losses = F.relu(positive - negative + TRIPLET_MARGIN) * usable
    return losses.sum() / usable.sum().clamp(min=1)


def alignment_loss(text: Tensor, classes: Tensor) -> Tensor:
    """Ours, off in the paper preset: mean |Z - sg[C]|^2, which draws text towards classes and leaves classes unchanged.

    The triplet is satisfied once the right class embedding is nearer than a wrong one by the margin; hot-swapping at
    inference wants the text embedding on the very spot that the U-Net has learned.
    """
    return (text - classes.detach()).square().sum(dim=1).mean()


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Binary cross-entropy: real pairs to 1, denoised pairs to 0."""
    real = F.binary_cross_entropy_with_logits(real_logits.float(), torch.ones_like(real_logits, dtype=torch.float32))
    fake = F.binary_cross_entropy_with_logits(fake_logits.float(), torch.zeros_like(fake_logits, dtype=torch.float32))
    return 0.5 * (real + fake)


def adversarial_loss(fake_logits: Tensor) -> Tensor:
    """Eq. 5: the mean of 1 - D(x0_hat)."""
    return (1.0 - torch.sigmoid(fake_logits.float())).mean()
