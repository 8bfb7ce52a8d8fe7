"""CoSimGen's networks: Spectron's two additions, the encoders' null, and the paper preset's size."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from model_store.cosimgen.config import CoSimGenConfig, paper_config, small_config
from model_store.cosimgen.encoders import ClassEncoder
from model_store.cosimgen.network import CoSimGenNetwork
from model_store.cosimgen.spectron import Spectron

TINY = CoSimGenConfig(
    num_classes=3, size_px=16, width=8, multipliers=(1, 2), blocks_per_level=1, embedding_dims=16, class_feature_dims=8
)


def spectron(channels: int, size: int, limit: int, spatial: torch.Tensor, spectral: torch.Tensor) -> Spectron:
    """A Spectron whose two Linears give ``spatial`` and ``spectral`` times the embedding's only number."""
    module = Spectron(channels, size, embedding_dims=1, spatial_limit=limit)
    for linear, values in ((module.spatial, spatial), (module.spectral, spectral)):
        linear.weight.data = values.reshape(-1, 1).clone()
        linear.bias.data.zero_()
    return module


def test_spectron_adds_one_map_to_every_channel_and_one_value_per_channel() -> None:
    space = torch.arange(16.0).view(4, 4)
    channel = torch.tensor([100.0, 200.0, 300.0])
    features = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    classes, times = torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [-1.0]])
    made = spectron(3, 4, 4, space, channel)(features, classes, times)
    by_hand = features + torch.stack([space, 2 * space])[:, None] + torch.stack([channel, -channel])[:, :, None, None]
    torch.testing.assert_close(made, by_hand)


def test_below_the_limit_the_map_is_the_bilinear_enlargement_of_a_smaller_one() -> None:
    space = torch.arange(4.0).view(2, 2)
    module = spectron(1, 8, 2, space, torch.zeros(1))
    assert module.spatial.out_features == 4
    made = module(torch.zeros(1, 1, 8, 8), torch.ones(1, 1), torch.zeros(1, 1))
    torch.testing.assert_close(
        made, F.interpolate(space[None, None], size=(8, 8), mode="bilinear", align_corners=False)
    )


def test_a_limit_of_the_full_size_is_the_papers_literal_reading() -> None:
    literal = paper_config(6).model_copy(update={"spatial_limit": 128})
    with torch.device("meta"):
        network = CoSimGenNetwork(literal)
    assert network.unet.down[0].blocks[0].spectron.spatial.out_features == 128 * 128


def test_the_class_encoder_sums_the_rows_of_the_classes_asked_for_and_nothing_is_the_zero_vector() -> None:
    encoder = ClassEncoder(4, 5, 6)
    multi_hot = torch.tensor([[1.0, 0, 1, 0], [0, 0, 0, 0]])
    summed = torch.stack([encoder.weight[0] + encoder.weight[2], torch.zeros(5)])
    torch.testing.assert_close(encoder(multi_hot), encoder.project(summed))


def test_the_paper_preset_has_about_36_million_parameters() -> None:
    with torch.device("meta"):
        network = CoSimGenNetwork(paper_config(6))
    assert 35e6 < sum(p.numel() for p in network.parameters()) < 37e6
    assert network.config.sample_shape == (6, 128, 128)


def test_the_small_preset_with_its_super_resolution_fits_into_20_megabytes_of_half_floats() -> None:
    from model_store.cosimgen.superres import ESPCN, small_espcn

    with torch.device("meta"):
        parts = [CoSimGenNetwork(small_config(6)), ESPCN(small_espcn())]
    assert 2 * sum(p.numel() for part in parts for p in part.parameters()) < 20e6 - 100_000


@pytest.mark.parametrize("stem", [1, 2])
def test_condition_and_timestep_reach_the_output_of_every_sample_of_their_own_and_no_other(stem: int) -> None:
    torch.manual_seed(0)
    network = CoSimGenNetwork(TINY.model_copy(update={"stem": stem})).eval()
    for parameter in network.parameters():  # the zero-initialised ends would hide everything
        if parameter.abs().sum() == 0:
            torch.nn.init.normal_(parameter, std=0.1)
    x, t = torch.randn(2, 6, 16, 16), torch.tensor([10, 500])
    condition = network.class_encoder(torch.tensor([[1.0, 0, 0], [0, 1, 1]]))
    base = network(x, t, condition)
    for changed in (
        network(x, torch.tensor([900, 500]), condition),
        network(x, t, condition * torch.tensor([[2.0], [1.0]])),
    ):
        assert (changed[0] - base[0]).abs().max() > 1e-4
        assert torch.equal(changed[1], base[1])
