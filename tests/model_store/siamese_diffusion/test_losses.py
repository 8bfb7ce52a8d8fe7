"""Siamese-Diffusion's hint network, losses and weights, against the paper's equations written out."""

from __future__ import annotations

import numpy as np
import torch

from model_store.card import SamplerConvention
from model_store.diffusion.schedule import add_noise, alphas_cumprod
from model_store.siamese_diffusion.hint import DenseHintConfig, PatchMerge, build_hint, image_hint, mask_hint
from model_store.siamese_diffusion.losses import (
    augmentation_loss,
    augmentation_weight,
    consistency_loss,
    denoising_loss,
    image_weight,
    renoised,
)

GENERATOR = torch.Generator().manual_seed(2)


def conv(c_in: int, c_out: int, kernel: int = 3) -> int:
    return c_in * c_out * kernel**2 + c_out


def test_dhi_has_the_papers_parameters_and_shapes_and_starts_at_zero() -> None:
    hint = build_hint(DenseHintConfig())
    pairs = sum(2 * conv(c, c) for c in (16, 32, 64, 128, 256))
    merges = sum(2 * 4 * c + 4 * c * 2 * c + conv(2 * c, 2 * c) for c in (32, 64, 128))
    wanted = conv(3, 16) + conv(16, 32) + pairs + merges + conv(256, 320)
    assert sum(p.numel() for p in hint.parameters()) == wanted == 3_263_424
    made = hint(torch.rand(1, 3, 64, 64, generator=GENERATOR))
    assert made.shape == (1, 320, 8, 8)
    assert not made.any()
    assert DenseHintConfig().factor == 8
    assert DenseHintConfig(widths=(16, 32, 64, 128)).factor == 4


def test_the_sparse_hint_network_is_controlnets_and_has_the_same_factor() -> None:
    for widths, side in (((16, 32, 64, 128, 256), 8), ((16, 32, 64, 128), 16)):
        hint = build_hint(DenseHintConfig(kind="sparse", widths=widths, out_channels=12))
        assert hint(torch.rand(1, 3, 64, 64, generator=GENERATOR)).shape == (1, 12, side, side)


def test_patch_merging_sees_exactly_its_own_four_pixels() -> None:
    merge = PatchMerge(2)
    x = torch.randn(1, 2, 4, 4, generator=GENERATOR)
    moved = x.clone()
    moved[:, :, 0, 1] += 1.0
    changed = (merge(moved) - merge(x)).abs().sum(1)[0] > 1e-6
    assert changed.tolist() == [[True, False], [False, False]]


def test_hints_are_the_mask_three_times_and_the_image_from_0_to_1() -> None:
    black_and_white = torch.tensor([[0.0, 0, 0], [1, 1, 1]])
    indices = torch.tensor([[[0, 1], [1, 0]]])
    assert torch.equal(mask_hint(indices, black_and_white), indices[:, None].expand(1, 3, 2, 2).float())
    assert image_hint(torch.tensor([-1.0, 0.0, 1.0])).tolist() == [0.0, 0.5, 1.0]


def test_each_loss_against_numpy() -> None:
    a, b = (torch.randn(4, 2, 3, 3, generator=GENERATOR) for _ in range(2))
    expected = np.mean((a.numpy() - b.numpy()) ** 2)
    assert np.isclose(denoising_loss(a, b).item(), expected)
    assert np.isclose(consistency_loss(a, b).item(), expected)
    chosen = torch.tensor([True, False, True, False])
    # the mean over the whole batch of w_a |e|^2
    weighted = np.mean(((a - b).numpy() ** 2) * chosen.numpy()[:, None, None, None])
    assert np.isclose(augmentation_loss(a[chosen], b[chosen], chosen).item(), weighted)
    assert augmentation_loss(a[:0], b[:0], torch.zeros(4, dtype=torch.bool)).item() == 0.0


def test_no_gradient_of_the_consistency_loss_reaches_the_image_branch() -> None:
    mask_branch, image_branch = (torch.randn(2, 2, generator=GENERATOR).requires_grad_() for _ in range(2))
    consistency_loss(mask_branch, image_branch).backward()
    assert mask_branch.grad is not None
    assert image_branch.grad is None


def test_weights_over_the_training() -> None:
    assert [image_weight(k, 3000) for k in (0, 750, 3000)] == [0.0, 0.25, 1.0]
    t = torch.tensor([0, 200, 201, 999])
    assert augmentation_weight(t, 1000, 3000).tolist() == [0, 0, 0, 0]
    assert augmentation_weight(t, 1001, 3000).tolist() == [1, 1, 0, 0]


def test_renoising_is_one_step_back_and_the_same_noise_again() -> None:
    abar_all = alphas_cumprod(SamplerConvention(schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)).double()
    z0, noise, predicted = (torch.randn(3, 4, 5, 5, generator=GENERATOR, dtype=torch.float64) for _ in range(3))
    abar = abar_all[torch.tensor([1, 100, 200])]
    wide = abar.view(-1, 1, 1, 1)
    z = add_noise(z0, noise, abar)
    z0_again = (z - (1 - wide).sqrt() * predicted) / wide.sqrt()  # eq. 11
    torch.testing.assert_close(
        renoised(z, predicted, noise, abar), add_noise(z0_again, noise, abar), rtol=1e-12, atol=1e-12
    )
    assert torch.equal(renoised(z, noise, noise, abar), z)
