from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from model_store.cosimgen.superres import (
    ESPCN,
    ESPCNConfig,
    paper_espcn,
    small_espcn,
    upscale,
)


def _parameters(config: ESPCNConfig) -> int:
    return sum(p.numel() for p in ESPCN(config).parameters())


def test_four_channels_become_the_four_pixels_of_a_two_by_two_block() -> None:
    network = ESPCN(ESPCNConfig(layers=(), last_kernel=1))
    last = network.body[-1]
    with torch.no_grad():
        last.weight.zero_()
        # output channel 4 c + 2 dy + dx lands on pixel (dy, dx) of channel c: give it the value 10 c + 2 dy + dx
        last.bias.copy_(
            torch.tensor([10 * c + 2 * dy + dx for c in range(6) for dy in (0, 1) for dx in (0, 1)]).float()
        )
    high = network(torch.zeros(1, 6, 2, 3))
    assert high.shape == (1, 6, 4, 6)
    for c in range(6):
        block = torch.tensor([[10.0 * c, 10 * c + 1], [10 * c + 2, 10 * c + 3]])
        assert torch.equal(high[0, c], block.repeat(2, 3))


def test_the_paper_preset_is_the_papers_three_layers() -> None:
    expected = (6 * 64 * 25 + 64) + (64 * 32 * 9 + 32) + (32 * 24 * 9 + 24)
    assert _parameters(paper_espcn()) == expected == 35_064


def test_the_small_preset_stays_below_four_hundred_thousand_parameters() -> None:
    assert _parameters(small_espcn()) == 245_080


def test_an_untrained_small_network_is_the_bilinear_enlargement() -> None:
    x = torch.randn(2, 6, 5, 7, generator=torch.Generator().manual_seed(1))
    expected = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    free = small_espcn().model_copy(update={"keeps_means": False})
    assert torch.equal(ESPCN(free)(x), expected)
    assert torch.equal(ESPCN(small_espcn())(x)[:, 3:], expected[:, 3:]), "the painted mask is left alone"


def test_an_enlarged_image_averages_to_the_small_one_whatever_the_network_says() -> None:
    generator = torch.Generator().manual_seed(4)
    network = ESPCN(small_espcn())
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05, generator=generator)
    x = torch.rand(2, 6, 5, 7, generator=generator) * 2 - 1
    with torch.no_grad():
        high = network(x)
    torch.testing.assert_close(F.avg_pool2d(high[:, :3], 2), x[:, :3])
    assert (F.avg_pool2d(high[:, 3:], 2) - x[:, 3:]).abs().max() > 0.01
    detail = high[:, :3] - F.interpolate(x[:, :3], scale_factor=2, mode="nearest")
    assert detail.abs().max() > 0.01


def test_enlarging_twice_is_the_network_after_the_network_clamped_in_between() -> None:
    torch.manual_seed(0)
    network = ESPCN(paper_espcn())
    with torch.no_grad():
        network.body[-1].weight.mul_(40.0)
    x = torch.rand(1, 6, 4, 4) * 2 - 1
    once = network(x).clamp(-1, 1)
    assert (network(x).abs() > 1).any(), "the case must reach the clamp"
    assert torch.equal(upscale(network, x, 2), network(once).clamp(-1, 1))
    assert torch.equal(upscale(network, 3 * x, 0), (3 * x).clamp(-1, 1))


def test_enlarging_takes_no_gradient_and_no_negative_count() -> None:
    network = ESPCN(paper_espcn())
    assert not upscale(network, torch.zeros(1, 6, 4, 4), 1).requires_grad
    with pytest.raises(ValueError, match="not -1"):
        upscale(network, torch.zeros(1, 6, 4, 4), -1)
