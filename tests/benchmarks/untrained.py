"""Models of a preset's shape with untrained weights, for benchmarks: speed does not depend on the weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from model_store.card import (
    CardLimits,
    ClassEntry,
    Defaults,
    ModelCard,
    PaletteRef,
    SamplerConvention,
    TextEncoderRef,
    WeightsFile,
)
from model_store.cosimgen.config import paper_config, small_config
from model_store.cosimgen.network import CoSimGenNetwork
from model_store.cosimgen.superres import ESPCN, ESPCNConfig
from model_store.cosimgen.system import CoSimGenSystem
from model_store.interface import System
from model_store.latent.autoencoder import (
    build_autoencoder,
    pathdiff_autoencoder,
    small_autoencoder,
    stable_diffusion_autoencoder,
)
from model_store.latent.denoiser import (
    DenoiserConfig,
    build_unet,
    control_copy,
    pathdiff_denoiser,
    small_denoiser,
    stable_diffusion_denoiser,
)
from model_store.masks.palette import fibonacci_rgb
from model_store.pathdiff import hint as pathdiff_hint
from model_store.pathdiff.system import PathDiffSystem
from model_store.siamese_diffusion import hint as siamese_hint
from model_store.siamese_diffusion.system import SiameseDiffusionSystem

SHA256 = "0" * 64
CLASSES = 6


class NoWords:
    """A token encoder that costs nothing: its tokens are constant."""

    def __init__(self, ref: TextEncoderRef) -> None:
        self.ref = ref

    def encode(self, text: str) -> Tensor:
        return torch.full((self.ref.max_tokens, self.ref.dims), 0.1 if text else 0.0)


def build(system: str, preset: str, device: torch.device, dtype: torch.dtype) -> System:
    """A cosimgen, siamese-diffusion or pathdiff of the preset paper or small; always the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _cosimgen(preset, device, dtype) if system == "cosimgen" else _latent(system, preset, device, dtype)


def _cosimgen(preset: str, device: torch.device, dtype: torch.dtype) -> System:
    config = (small_config if preset == "small" else paper_config)(CLASSES)
    size = config.size_px
    card = _card("cosimgen", size, (size, 4 * size), CLASSES, inputs=("classes",))
    return CoSimGenSystem(card, CoSimGenNetwork(config), ESPCN(ESPCNConfig()), device, dtype)


def _latent(system: str, preset: str, device: torch.device, dtype: torch.dtype) -> System:
    siamese = system == "siamese-diffusion"
    if preset == "small":
        autoencoder, denoiser = small_autoencoder(), small_denoiser(32)
    elif siamese:
        autoencoder, denoiser = stable_diffusion_autoencoder(), stable_diffusion_denoiser()
    else:
        autoencoder, denoiser = pathdiff_autoencoder(), pathdiff_denoiser()
    size = denoiser.latent_px * autoencoder.factor
    # full-size widths first, then a halving each, until the latent's side
    halvings = autoencoder.factor.bit_length() - 1
    if siamese:
        hint_config: Any = siamese_hint.DenseHintConfig(
            widths=siamese_hint.PAPER_WIDTHS[: 2 + halvings], out_channels=denoiser.hint_channels
        )
        hint: nn.Module = siamese_hint.build_hint(hint_config)
    else:
        hint_config = pathdiff_hint.PathDiffHintConfig(
            widths=(16, 32, 96)[: 1 + halvings], out_channels=denoiser.hint_channels
        )
        hint = pathdiff_hint.build_hint(hint_config)
    tokens = TextEncoderRef(name="none", dims=denoiser.text_dims, max_tokens=77 if siamese else 154)
    card = _card(
        system,
        size,
        (size,),
        2,
        inputs=("prompt", "mask"),
        input_sets=(("prompt", "mask"),),
        text_encoder=tokens,
        limits=CardLimits(max_prompt_tokens=tokens.max_tokens),
        network={"denoiser": DenoiserConfig.model_dump(denoiser, mode="json")},
    )
    unet = build_unet(denoiser)
    kind = SiameseDiffusionSystem if siamese else PathDiffSystem
    return kind(
        card,
        build_autoencoder(autoencoder),
        unet,
        control_copy(unet),
        hint,
        device,
        dtype,
        tokens=NoWords(tokens),  # type: ignore[arg-type]
    )


def _card(system: str, generation_px: int, sizes: tuple[int, ...], classes: int, **more: Any) -> ModelCard:
    colours = fibonacci_rgb(classes).tolist()
    return ModelCard(
        name="bench",
        version="1.0.0",
        system=system,
        title="Benchmark",
        description="Untrained weights.",
        classes=tuple(ClassEntry(index=i, name=f"class {i}", colour=tuple(colours[i])) for i in range(classes)),
        palette=PaletteRef(count=classes),
        generation_size_px=generation_px,
        sizes_px=sizes,
        default_size_px=sizes[-1],
        sampler=SamplerConvention(prediction_type="v_prediction"),
        defaults=Defaults(guidance_scale=2.0),
        intended_use="benchmarks",
        limits_of_use="benchmarks",
        licence="Apache-2.0",
        files={"model.safetensors": WeightsFile(sha256=SHA256, bytes=0)},
        **more,
    )
