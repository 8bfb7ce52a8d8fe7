"""The latent U-Net, its control copy and the autoencoder: what the papers' networks are, and how control enters."""

from __future__ import annotations

import torch

from model_store.latent.autoencoder import build_autoencoder, decode_latents, draw_latents, encode_moments
from model_store.latent.denoiser import (
    DenoiserConfig,
    Residuals,
    build_unet,
    control_copy,
    control_residuals,
    denoise,
    stable_diffusion_denoiser,
)
from tests.model_store.latent.tiny import AUTOENCODER, DENOISER, parts

STABLE_DIFFUSION_SHAPED = DenoiserConfig(
    latent_px=16,
    widths=(8, 8, 16, 16),
    text_at=(True, True, True, False),
    heads=(1, 1, 2, 2),
    text_dims=8,
    norm_groups=4,
)


def inputs(
    config: DenoiserConfig = DENOISER, count: int = 2
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    z = torch.randn(count, *config.latent_shape, generator=generator)
    text = torch.randn(count, 4, config.text_dims, generator=generator)
    hint = torch.randn(count, config.hint_channels, config.latent_px, config.latent_px, generator=generator)
    return z, torch.tensor([999, 20][:count]), text, hint


def test_stable_diffusions_control_gives_13_residuals_of_the_skips_shapes() -> None:
    unet = build_unet(STABLE_DIFFUSION_SHAPED)
    z, t, text, hint = inputs(STABLE_DIFFUSION_SHAPED)
    residuals = control_residuals(control_copy(unet), z, t, text, hint)
    assert len(list(residuals)) == STABLE_DIFFUSION_SHAPED.residuals == stable_diffusion_denoiser().residuals == 13
    sides = [r.shape[-1] for r in residuals]
    assert sides == [16, 16, 16, 8, 8, 8, 4, 4, 4, 2, 2, 2, 2]


def test_an_untrained_control_changes_nothing_to_the_bit() -> None:
    unet = build_unet(DENOISER).eval()
    z, t, text, hint = inputs()
    with torch.no_grad():
        residuals = control_residuals(control_copy(unet).eval(), z, t, text, hint)
        assert all(not r.any() for r in residuals)
        assert torch.equal(denoise(unet, z, t, text, residuals), denoise(unet, z, t, text))


def test_a_trained_control_changes_the_output_and_each_samples_hint_only_its_own() -> None:
    found = parts("pathdiff")
    z, t, text, hint = inputs()
    other = hint.clone()
    other[1] += 1.0
    with torch.no_grad():
        first, second = (
            denoise(found["unet"], z, t, text, control_residuals(found["control"], z, t, text, h))
            for h in (hint, other)
        )
        plain = denoise(found["unet"], z, t, text)
    assert torch.equal(first[0], second[0])
    assert not torch.allclose(first[1], second[1])
    assert not torch.allclose(first, plain)


def test_mixing_is_one_by_one_and_detaching_cuts_gradients_off() -> None:
    leaf = torch.ones(1, 2, 2, 2, requires_grad=True)
    a = Residuals((leaf * 2.0, leaf * 3.0), leaf * 4.0)
    b = Residuals((leaf * 10.0, leaf * 20.0), leaf * 30.0)
    mixed = a.mixed(b.detach(), 0.25, 1.0)
    assert [r[0, 0, 0, 0].item() for r in mixed] == [10.5, 20.75, 31.0]
    sum(r.sum() for r in mixed).backward()
    assert leaf.grad is not None
    assert leaf.grad.unique().item() == 0.25 * (2 + 3 + 4)


def test_latents_are_scaled_on_the_way_in_and_back_on_the_way_out() -> None:
    autoencoder = build_autoencoder(AUTOENCODER).eval()
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        mean, std = encode_moments(autoencoder, images)
        posterior = autoencoder.encode(images).latent_dist
        assert mean.shape == (2, 2, 8, 8)
        assert AUTOENCODER.factor == 4
        torch.testing.assert_close(mean, 0.5 * posterior.mean)
        torch.testing.assert_close(std, 0.5 * posterior.std)
        torch.testing.assert_close(decode_latents(autoencoder, mean), autoencoder.decode(posterior.mean).sample)
    draws = torch.stack([draw_latents(mean, std, torch.Generator().manual_seed(s)) for s in range(400)])
    torch.testing.assert_close(((draws.mean(0) - mean) / std).abs().mean(), torch.tensor(0.8 / 20), rtol=0.3, atol=0.01)
    torch.testing.assert_close((draws.std(0) / std).mean(), torch.tensor(1.0), rtol=0.02, atol=0.0)
