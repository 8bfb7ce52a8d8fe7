"""Siamese-Diffusion's losses (section 3): four mean squared errors and their weights.

    L = L_m + L_i + w_c L_c + w_a L_m'        (eq. 6; w_a inside L_m' in the paper)

L_m and L_i against the noise, from the mask branch and from the image branch (eq. 7, 8); L_c draws the mask branch to
the image branch's prediction (eq. 9); L_m' is the mask branch again, on an image that the image branch has cleaned
(eq. 12).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from model_store.diffusion.schedule import per_sample

CONSISTENCY_WEIGHT = 1.0
AUGMENTATION_TIMESTEPS = 200
"""T_a of eq. 13: at higher noise one step does not clean an image well enough to learn from."""


def image_weight(iteration: int, iterations: int) -> float:
    """w_i = k / N_iter, 0..1 (eq. 5): the image's share of the mixed control grows over the training; w_m is 1."""
    return iteration / iterations


def augmentation_weight(t: Tensor, iteration: int, iterations: int) -> Tensor:
    """w_a of each sample, ``(B,)`` float32 (eq. 13): 1 where k > N_iter / 3 and t <= 200, else 0."""
    return ((t <= AUGMENTATION_TIMESTEPS) & (iteration > iterations / 3)).float()


def denoising_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """L_m and L_i (eq. 7, 8): the mean squared error."""
    return F.mse_loss(predicted.float(), target.float())


def consistency_loss(mask_branch: Tensor, image_branch: Tensor) -> Tensor:
    """L_c (eq. 9): MSE(eps_m, sg[eps_mix]); no gradient reaches the image branch."""
    return F.mse_loss(mask_branch.float(), image_branch.detach().float())


def renoised(z: Tensor, predicted: Tensor, noise: Tensor, abar: Tensor) -> Tensor:
    """z_t' (eq. 11 and 1): z0' from z_t by one step with the predicted noise, noised again with the same eps and t.

    z, predicted, noise ``(B, c, h, w)``, abar_t ``(B,)``. Algebra leaves z_t' = z_t - sqrt(1 - abar_t) (predicted -
    noise), which divides by nothing that is small.
    """
    return z - per_sample((1.0 - abar).sqrt(), z) * (predicted - noise)


def augmentation_loss(predicted: Tensor, target: Tensor, chosen: Tensor) -> Tensor:
    """L_m' (eq. 12): the mean of w_a |eps_m' - eps|^2 over the batch.

    predicted, target ``(n, c, h, w)``: of the ``n`` samples whose w_a is 1; chosen ``(B,)`` bool says which of the
    batch they are.
    """
    if not len(predicted):
        return torch.zeros((), device=predicted.device)
    return F.mse_loss(predicted.float(), target.float()) * (len(predicted) / len(chosen))
