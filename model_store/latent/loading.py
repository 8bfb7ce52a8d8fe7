"""Loading a latent base, or an autoencoder, from a folder of either kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from model_store.card import SamplerConvention, TextEncoderRef
from model_store.latent.autoencoder import AutoencoderConfig, build_autoencoder
from model_store.latent.base import (
    AUTOENCODER_ABOUT,
    AUTOENCODER_WEIGHTS,
    BASE_ABOUT,
    BASE_WEIGHTS,
    BaseInvalid,
    LatentBase,
    checked_weights,
    fill,
    read_about,
    read_value,
)
from model_store.latent.denoiser import DenoiserConfig, build_unet
from model_store.latent.text import TokenEncoder, load_token_encoder


def load_base(
    folder: Path | str, *, latent_px: int | None = None, chunks: int = 1, tokens: TokenEncoder | None = None
) -> LatentBase:
    """Reads a base from either kind of folder.

    ``latent_px`` overrides the side of its latents: 48 takes a Stable Diffusion of 512 px to 384. A Stable Diffusion's
    CLIP reads ``chunks`` chunks of text. ``tokens`` replaces the text encoder that the folder names. Raises
    :class:`BaseInvalid`, and :class:`model_store.text.TextEncoderMissing` if that encoder is missing.
    """
    folder = Path(folder)
    if (folder / BASE_ABOUT).is_file():
        base = _load_own(folder, tokens)
    elif (folder / "model_index.json").is_file():
        from model_store.latent.stable_diffusion import load_stable_diffusion

        base = load_stable_diffusion(folder, chunks=chunks, tokens=tokens)
    else:
        raise BaseInvalid(
            f"{folder} holds neither {BASE_ABOUT} (of twinset train base) nor model_index.json (of a Stable Diffusion "
            "1.5 in diffusers' "
            "layout); give a folder that does"
        )
    dims = base.denoiser_config.text_dims
    if base.tokens.ref.dims != dims:
        raise BaseInvalid(
            f"the U-Net of {folder} reads text of {dims} dimensions, but its text encoder gives {base.tokens.ref.dims}"
        )
    return base if latent_px is None else base.at_latent_size(latent_px)


def load_autoencoder(folder: Path | str) -> tuple[AutoencoderKL, AutoencoderConfig, dict[str, Any]]:
    """An autoencoder, its shape and its provenance, of ``twinset train autoencoder`` or a Stable Diffusion's ``vae/``.

    Raises :class:`BaseInvalid`.
    """
    folder = Path(folder)
    if (folder / "vae").is_dir():
        from model_store.latent.stable_diffusion import load_vae

        return load_vae(folder)
    about = read_about(folder / AUTOENCODER_ABOUT, "twinset train autoencoder")
    config = read_value(AutoencoderConfig, about, "network", folder / AUTOENCODER_ABOUT)
    autoencoder = build_autoencoder(config)
    fill(autoencoder, checked_weights(folder, AUTOENCODER_WEIGHTS, about), "", folder / AUTOENCODER_WEIGHTS)
    return autoencoder, config, about


def _load_own(folder: Path, tokens: TokenEncoder | None) -> LatentBase:
    path = folder / BASE_ABOUT
    about = read_about(path, "twinset train base")
    autoencoder_config = read_value(AutoencoderConfig, about, "autoencoder", path)
    denoiser_config = read_value(DenoiserConfig, about, "denoiser", path)
    convention = read_value(SamplerConvention, about, "sampler", path)
    ref = read_value(TextEncoderRef, about, "text_encoder", path)
    tensors = checked_weights(folder, BASE_WEIGHTS, about)
    autoencoder, unet = build_autoencoder(autoencoder_config), build_unet(denoiser_config)
    fill(autoencoder, tensors, "autoencoder.", folder / BASE_WEIGHTS)
    fill(unet, tensors, "unet.", folder / BASE_WEIGHTS)
    return LatentBase(
        autoencoder=autoencoder,
        autoencoder_config=autoencoder_config,
        unet=unet,
        denoiser_config=denoiser_config,
        convention=convention,
        tokens=tokens or load_token_encoder(ref),
        size_px=denoiser_config.latent_px * autoencoder_config.factor,
        about=about,
    )
