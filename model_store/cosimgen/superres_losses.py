"""Losses of super-resolution: CoSimGen, equations 7 to 9."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from model_store.features import FeatureNetwork, feature_distance, split_pair


@dataclass(frozen=True)
class SuperresLoss:
    """The total that is minimised, and its two parts (scalars; the parts carry no weight)."""

    total: Tensor
    mse: Tensor
    perceptual: Tensor


def superres_loss(predicted: Tensor, real: Tensor, features: FeatureNetwork | None, weight: float) -> SuperresLoss:
    """L = L_MSE + weight * L_perc (eq. 9), over pairs ``(B, 6, H, W)`` in [-1, 1].

    L_MSE is the mean over all values (eq. 7). L_perc is the feature distance (eq. 8) of images and painted masks, each
    seen as RGB. ``features`` None, or ``weight`` 0, leaves L_perc at 0.
    """
    mse = F.mse_loss(predicted.float(), real.float())
    if features is None or weight == 0.0:
        return SuperresLoss(total=mse, mse=mse, perceptual=mse.new_zeros(()))
    perceptual = feature_distance(features, split_pair(predicted), split_pair(real))
    return SuperresLoss(total=mse + weight * perceptual, mse=mse, perceptual=perceptual)
