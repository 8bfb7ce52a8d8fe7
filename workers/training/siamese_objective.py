"""Siamese-Diffusion's losses (section 3) over one batch, in one forward as data parallelism needs it.

    mask branch     c_m from the mask                        L_m  = |eps_m - eps|^2
    image branch    c_mix = w_i c_i + sg[c_m]                L_i  = |eps_mix - eps|^2, the U-Net's weights cut off
    consistency                                              L_c  = |eps_m - sg[eps_mix]|^2
    augmentation    z_t' cleaned by eps_mix, noised again    L_m' = |eps_m' - eps|^2, where w_a = 1

With neither consistency nor augmentation no loss reads the image branch, so it is left out: the rest is ControlNet.
If the network predicts velocity, the losses compare velocities, and z_t' comes from the noise that they mean.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model_store.diffusion.schedule import predicted_x0_and_noise, velocity
from model_store.latent.denoiser import Residuals, control_residuals
from model_store.siamese_diffusion.losses import (
    augmentation_loss,
    augmentation_weight,
    consistency_loss,
    denoising_loss,
    image_weight,
    renoised,
)
from model_store.siamese_diffusion.network import SiameseNetwork
from workers.training.latents import Noised


class SiameseObjective(nn.Module):
    """All losses of an iteration, weighted, so that they can be summed."""

    def __init__(
        self,
        network: SiameseNetwork,
        iterations: int,
        prediction_type: str,
        *,
        consistency: bool = True,
        augmentation: bool = True,
        consistency_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.network = network
        self.iterations, self.prediction_type = iterations, prediction_type
        self.consistency, self.augmentation, self.consistency_weight = consistency, augmentation, consistency_weight

    @property
    def image_branch(self) -> bool:
        """Whether a loss reads what the image branch predicts."""
        return self.consistency or self.augmentation

    def forward(
        self,
        z: Tensor,
        noise: Tensor,
        target: Tensor,
        t: Tensor,
        abar: Tensor,
        text: Tensor,
        masks: Tensor,
        images: Tensor,
        iteration: int,
    ) -> dict[str, Tensor]:
        """The losses by name.

        z, noise, target ``(B, c, h, w)``, t and abar_t ``(B,)``, text ``(B, L, d)``, hints of masks and images ``(B, 3,
        H, W)``.
        """
        network, noised = self.network, Noised(z, noise, target, t, abar)
        # the hint features depend on neither z_t nor t, so the augmented forward uses them again
        features = network.hint(masks)
        by_mask = control_residuals(network.control, z, t, text, features)
        predicted = network.denoise(z, t, text, by_mask)
        losses = {"mask": denoising_loss(predicted, target)}
        if not self.image_branch:
            return losses
        mixed = self.image_branch_output(noised, text, images, by_mask, iteration)
        losses["image"] = denoising_loss(mixed, target)
        if self.consistency:
            losses["consistency"] = self.consistency_weight * consistency_loss(predicted, mixed)
        if self.augmentation:
            losses["augmentation"] = self.augmented(noised, text, features, mixed.detach().float(), iteration)
        return losses

    def image_branch_output(
        self, noised: Noised, text: Tensor, images: Tensor, by_mask: Residuals, iteration: int
    ) -> Tensor:
        """eps_mix by the copy (eq. 5, 8).

        Gradients reach control and hint through c_i alone, and no weight of the U-Net.
        """
        by_image = self.network.residuals(noised.z, noised.t, text, images)
        mixed = by_image.mixed(by_mask.detach(), image_weight(iteration, self.iterations), 1.0)
        return self.network.denoise_by_copy(noised.z, noised.t, text, mixed)

    def augmented(self, noised: Noised, text: Tensor, features: Tensor, mixed: Tensor, iteration: int) -> Tensor:
        """L_m' (eq. 11 to 13); without a sample whose w_a is 1 there is no forward."""
        chosen = augmentation_weight(noised.t, iteration, self.iterations).bool()
        if not chosen.any():
            return torch.zeros((), device=chosen.device)
        x0, eps = predicted_x0_and_noise(noised.z, mixed, noised.abar, self.prediction_type)
        again = renoised(noised.z, eps, noised.noise, noised.abar)[chosen]
        # z_t' is x0 with the same noise at the same t, so that this velocity is what that noise means for it
        target = noised.noise if self.prediction_type == "epsilon" else velocity(x0, noised.noise, noised.abar)
        t, text = noised.t[chosen], text[chosen]
        residuals = control_residuals(self.network.control, again, t, text, features[chosen])
        return augmentation_loss(self.network.denoise(again, t, text, residuals), target[chosen], chosen)
