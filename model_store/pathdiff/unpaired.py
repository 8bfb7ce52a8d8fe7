"""Joint training on unpaired data (section 3.2, Algorithm 1).

A sample comes from one of two datasets, and lacks the other's condition.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

P_SPLIT = 0.5
P_UNCOND = 0.1


@dataclass(frozen=True)
class Draw:
    """The conditions of ``B`` samples, bool each.

    Drawn from the text dataset (else from the mask dataset), with its text, with its mask.
    """

    from_text: Tensor
    with_text: Tensor
    with_mask: Tensor


def draw_conditions(
    count: int, generator: torch.Generator, *, p_split: float = P_SPLIT, p_uncond: float = P_UNCOND
) -> Draw:
    """Draws the dataset of each sample, and whether the sample keeps its condition.

    u <= p_split is a text sample, whose mask is null; else a mask sample, whose text is null; then each drops the
    condition it has with p_uncond. (Algorithm 1 as printed compares the other way round than its own text.)
    """
    u, drop = torch.rand(2, count, generator=generator)
    from_text, conditioned = u <= p_split, drop >= p_uncond
    return Draw(from_text, from_text & conditioned, ~from_text & conditioned)
