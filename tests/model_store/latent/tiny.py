"""The two mask systems in miniature: real networks of diffusers, untrained but not zero, 32 px over a latent of 8."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor, nn

from model_store.card import CardLimits, ClassEntry, Defaults, ModelCard, PaletteRef, SamplerConvention, TextEncoderRef
from model_store.latent.autoencoder import AutoencoderConfig, build_autoencoder
from model_store.latent.denoiser import DenoiserConfig, build_unet, control_copy
from model_store.latent.system import LatentSystem
from model_store.pathdiff import hint as pathdiff_hint
from model_store.pathdiff.system import PathDiffSystem
from model_store.siamese_diffusion import hint as siamese_hint
from model_store.siamese_diffusion.system import SiameseDiffusionSystem

SIZE_PX, TOKENS, DIMS = 32, 4, 8
AUTOENCODER = AutoencoderConfig(
    latent_channels=2, widths=(8, 8, 8), layers_per_block=1, norm_groups=4, mid_attention=False, scaling_factor=0.5
)
DENOISER = DenoiserConfig(
    latent_channels=2,
    latent_px=8,
    widths=(8, 16),
    text_at=(False, True),
    layers_per_block=1,
    heads=(1, 2),
    text_dims=DIMS,
    norm_groups=4,
)
SIAMESE_HINT = siamese_hint.DenseHintConfig(widths=(4, 8, 16, 32), out_channels=8)
PATHDIFF_HINT = pathdiff_hint.PathDiffHintConfig(widths=(4, 8, 12), out_channels=8)


class LetterTokens:
    """A token encoder whose hidden states come from the text's hash; "" is zeros."""

    ref = TextEncoderRef(name="letters", dims=DIMS, max_tokens=TOKENS)

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, text: str) -> Tensor:
        self.asked.append(text)
        digest = hashlib.sha256(text.encode()).digest() if text else bytes(TOKENS * DIMS)
        return torch.tensor(list(digest[: TOKENS * DIMS]), dtype=torch.float32).view(TOKENS, DIMS) / 128.0


def latent_card(system: str, **changes: Any) -> ModelCard:
    """A card of two classes, black and white."""
    values: dict[str, Any] = {
        "name": "tiny-" + system.split("-")[0],
        "version": "1.0.0",
        "system": system,
        "title": "Tiny",
        "description": "For tests.",
        "inputs": ("prompt", "mask"),
        "input_sets": (("prompt",), ("mask",), ("prompt", "mask"))
        if system == "pathdiff"
        else (("mask",), ("prompt", "mask")),
        "classes": (
            ClassEntry(index=0, name="background", colour=(0, 0, 0), queryable=False),
            ClassEntry(index=1, name="nucleus", colour=(255, 255, 255)),
        ),
        "palette": PaletteRef(kind="listed", count=2),
        "generation_size_px": SIZE_PX,
        "sizes_px": (SIZE_PX,),
        "default_size_px": SIZE_PX,
        "sampler": SamplerConvention(
            schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, prediction_type="epsilon"
        ),
        "defaults": Defaults(steps=4, guidance_scale=1.5),
        "limits": CardLimits(max_prompt_tokens=TOKENS),
        "network": {
            "autoencoder": AUTOENCODER.model_dump(mode="json"),
            "denoiser": DENOISER.model_dump(mode="json"),
            "hint": (PATHDIFF_HINT if system == "pathdiff" else SIAMESE_HINT).model_dump(mode="json"),
        },
        "text_encoder": LetterTokens.ref,
        "intended_use": "tests",
        "limits_of_use": "tests",
        "licence": "Apache-2.0",
    }
    return ModelCard(**(values | changes))


def parts(system: str, seed: int = 3) -> dict[str, nn.Module]:
    """The four networks, with weights in the layers that start at zero too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = build_unet(DENOISER)
        hint = (
            pathdiff_hint.build_hint(PATHDIFF_HINT) if system == "pathdiff" else siamese_hint.build_hint(SIAMESE_HINT)
        )
        found = {
            "autoencoder": build_autoencoder(AUTOENCODER),
            "unet": unet,
            "control": control_copy(unet),
            "hint": hint,
        }
        for module in found.values():
            for parameter in module.parameters():
                if not parameter.any():
                    nn.init.normal_(parameter, std=0.1)
    return found


def tiny_system(system: str, *, dtype: torch.dtype = torch.float32, **changes: Any) -> LatentSystem:
    """A loaded system with :class:`LetterTokens`."""
    kind = PathDiffSystem if system == "pathdiff" else SiameseDiffusionSystem
    return kind(
        latent_card(system, **changes), device=torch.device("cpu"), dtype=dtype, tokens=LetterTokens(), **parts(system)
    )
