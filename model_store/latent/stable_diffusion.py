"""Reading a Stable Diffusion 1.5 from a folder in diffusers' layout, into the configs of our own cards.

All files are local and safetensors. The configs are compared field by field with those of the networks that we build,
so a model that differs in anything (another block, another norm, a rescaled schedule) is refused with that field's name
and value.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from pydantic import ValidationError
from torch import nn

from model_store.card import SamplerConvention
from model_store.latent.autoencoder import AutoencoderConfig, build_autoencoder
from model_store.latent.base import BaseInvalid, LatentBase, Value, file_sha256
from model_store.latent.denoiser import DenoiserConfig, build_unet, on_meta
from model_store.latent.text import ClipTokens, TokenEncoder, clip_fingerprint

DiffusersModel = AutoencoderKL | UNet2DConditionModel
WEIGHTS_NAME = "diffusion_pytorch_model.safetensors"
PARTS = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
}
"""The folders that are read, and the classes that ``model_index.json`` may name for them; it names the scheduler's
too."""

SCHEDULE_FIELDS = {
    "beta_schedule": ("schedule", None),
    "beta_start": ("beta_start", None),
    "beta_end": ("beta_end", None),
    "num_train_timesteps": ("train_timesteps", 1000),
    "prediction_type": ("prediction_type", "epsilon"),
    "timestep_spacing": ("timestep_spacing", "leading"),
    "steps_offset": ("steps_offset", 0),
    "set_alpha_to_one": ("set_alpha_to_one", True),
    "clip_sample": ("clip_sample", False),
    "clip_sample_range": ("clip_sample_range", 1.0),
}
"""The scheduler's field -> ours, and what a config means that leaves it out: diffusers' default, but that latents are
not clipped."""

PLAIN_FIELDS = {"trained_betas": None, "thresholding": False, "rescale_betas_zero_snr": False}
"""What our convention cannot say, with the value that it need not say."""


def load_stable_diffusion(folder: Path, *, chunks: int = 1, tokens: TokenEncoder | None = None) -> LatentBase:
    """The base of a folder in diffusers' layout.

    It has ``model_index.json``, ``unet/``, ``vae/``, ``text_encoder/``, ``tokenizer/`` and ``scheduler/``.

    Raises :class:`BaseInvalid` for a missing piece, for weights that are not safetensors, and for anything that our
    configs do not express; :class:`model_store.text.TextEncoderMissing` for a text encoder without safetensors.
    """
    index = _read(folder / "model_index.json")
    _check_index(folder, index)
    convention = sampler_convention(_read(folder / "scheduler" / "scheduler_config.json"), folder / "scheduler")
    autoencoder, autoencoder_config, about = load_vae(folder)
    path = folder / "unet"
    config = _read(path / "config.json")
    denoiser_config = denoiser_shape(config, path)
    _refuse_differences(path, config, on_meta(build_unet, denoiser_config), apart={"sample_size", "attention_head_dim"})
    if denoiser_config.latent_channels != autoencoder_config.latent_channels:
        raise BaseInvalid(
            f"{path} denoises {denoiser_config.latent_channels} channels, but {folder / 'vae'} makes "
            f"{autoencoder_config.latent_channels}"
        )
    unet = build_unet(denoiser_config)
    about["files"] |= _fill(unet, UNet2DConditionModel, path)
    return LatentBase(
        autoencoder=autoencoder,
        autoencoder_config=autoencoder_config,
        unet=unet,
        denoiser_config=denoiser_config,
        convention=convention,
        tokens=tokens or clip_tokens(folder, chunks),
        size_px=denoiser_config.latent_px * autoencoder_config.factor,
        about=about | {"scheduler": index["scheduler"][1]},
    )


def load_vae(folder: Path) -> tuple[AutoencoderKL, AutoencoderConfig, dict[str, Any]]:
    """The autoencoder of a folder's ``vae/``, its shape, and its provenance. Raises :class:`BaseInvalid`."""
    path = folder / "vae"
    config = _read(path / "config.json")
    _check_class(path, config.get("_class_name"), PARTS["vae"])
    shape = _validated(
        AutoencoderConfig,
        path,
        latent_channels=config.get("latent_channels", 4),
        widths=config.get("block_out_channels"),
        layers_per_block=config.get("layers_per_block", 1),
        norm_groups=config.get("norm_num_groups", 32),
        mid_attention=config.get("mid_block_add_attention", True),
        scaling_factor=config.get("scaling_factor", 0.18215),
    )
    # force_upcast is about half precision, which the autoencoder never runs in here
    _refuse_differences(path, config, on_meta(build_autoencoder, shape), apart={"sample_size", "force_upcast"})
    autoencoder = build_autoencoder(shape)
    about: dict[str, Any] = {
        "kind": "stable-diffusion",
        "name": folder.resolve().name,
        "files": _fill(autoencoder, AutoencoderKL, path),
        "data": [],
        "licence": f"the licence of the base model {folder.resolve().name}",
        "deviations": [],
        "diffusers_version": config.get("_diffusers_version"),
    }
    return autoencoder, shape, about


def clip_tokens(folder: Path, chunks: int) -> ClipTokens:
    """The CLIP of a folder's ``text_encoder/`` and ``tokenizer/``.

    Raises :class:`model_store.text.TextEncoderMissing` before anything else is read if its weights are not safetensors.
    """
    clip_fingerprint(folder)
    return ClipTokens(folder, chunks=chunks)


def denoiser_shape(config: Mapping[str, Any], path: Path) -> DenoiserConfig:
    """diffusers' config of a U-Net -> ours. Raises :class:`BaseInvalid` naming the field and its value."""
    widths = tuple(config.get("block_out_channels", (320, 640, 1280, 1280)))
    heads = config.get("attention_head_dim", 8)
    down = tuple(config.get("down_block_types", ()))
    return _validated(
        DenoiserConfig,
        path,
        latent_channels=config.get("in_channels", 4),
        latent_px=config.get("sample_size"),
        widths=widths,
        text_at=tuple(kind == "CrossAttnDownBlock2D" for kind in down),
        layers_per_block=config.get("layers_per_block", 2),
        # diffusers' old name for the number of heads: one for all levels, or one a level
        heads=(heads,) * len(widths) if isinstance(heads, int) else tuple(heads),
        text_dims=config.get("cross_attention_dim", 1280),
        norm_groups=config.get("norm_num_groups", 32),
    )


def sampler_convention(config: Mapping[str, Any], path: Path) -> SamplerConvention:
    """The DDIM convention of any of diffusers' schedulers with betas.

    Raises :class:`BaseInvalid` naming field and value.

    What belongs to the folder's own sampler alone (PNDM's ``skip_prk_steps``) is not read, since sampling is by DDIM.
    """
    for field in ("beta_schedule", "beta_start", "beta_end"):
        if field not in config:
            raise BaseInvalid(
                f"{path} ({config.get('_class_name')}) has no {field}; only models that diffuse by betas can be a base"
            )
    for field, plain in PLAIN_FIELDS.items():
        if config.get(field, plain) != plain:
            raise BaseInvalid(f"{path}: {field} is {config[field]!r}; this version can only sample with {plain!r}")
    return _validated(
        SamplerConvention,
        path,
        **{ours: config.get(theirs, default) for theirs, (ours, default) in SCHEDULE_FIELDS.items()},
    )


def _check_index(folder: Path, index: Mapping[str, Any]) -> None:
    path = folder / "model_index.json"
    _check_class(path, index.get("_class_name"), ("StableDiffusionPipeline",))
    for part, known in PARTS.items():
        listed = index.get(part)
        if not isinstance(listed, list) or len(listed) != 2:
            raise BaseInvalid(f"{path} lists no {part}; a base has {', '.join(PARTS)} and scheduler")
        _check_class(path, listed[1], known, part=part)
        if not (folder / part).is_dir():
            raise BaseInvalid(f"{folder / part} does not exist; a base has {', '.join(PARTS)} and scheduler")
    if not isinstance(index.get("scheduler"), list):
        raise BaseInvalid(f"{path} lists no scheduler; a base has {', '.join(PARTS)} and scheduler")


def _check_class(path: Path, found: Any, known: tuple[str, ...], *, part: str = "") -> None:
    if found not in known:
        raise BaseInvalid(
            f"{path}: {part or 'the model'} is a {found}; this version reads {' or '.join(known)} (Stable Diffusion "
            "1.5)"
        )


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise BaseInvalid(
            f"{path} does not exist; a base in diffusers' layout has model_index.json, scheduler/scheduler_config.json "
            "and a config.json of each part"
        )
    try:
        read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BaseInvalid(f"{path} is not JSON ({error})") from None
    return read


def _validated(kind: type[Value], path: Path, **values: Any) -> Value:
    try:
        return kind(**values)
    except ValidationError as error:
        wrong = error.errors()[0]
        name = ".".join(map(str, wrong["loc"])) or "config"
        raise BaseInvalid(
            f"{path}: {name} is {wrong['input']!r}, which this version cannot express ({wrong['msg']})"
        ) from None


def _refuse_differences(path: Path, config: Mapping[str, Any], built: DiffusersModel, *, apart: set[str]) -> None:
    """Compares a config, its gaps filled by diffusers' defaults, with that of the network we build instead."""
    signature = inspect.signature(type(built).__init__).parameters
    defaults = {
        name: value.default for name, value in signature.items() if value.default is not inspect.Parameter.empty
    }
    for name, value in (defaults | dict(config)).items():
        if name.startswith("_") or name in apart:
            continue
        if name not in defaults:
            raise BaseInvalid(f"{path / 'config.json'}: {name} is {value!r}, a field that this version does not know")
        ours = built.config[name]
        if _plain(value) != _plain(ours):
            raise BaseInvalid(f"{path / 'config.json'}: {name} is {value!r}; this version can only run {ours!r}")


def _plain(value: Any) -> Any:
    return tuple(map(_plain, value)) if isinstance(value, (list, tuple)) else value


def _fill(module: nn.Module, kind: type[DiffusersModel], path: Path) -> dict[str, str]:
    """Loads the folder's safetensors into a module and returns their sha256.

    They are read by diffusers, which knows old names and shards.
    """
    names = sorted(file.name for file in path.iterdir()) if path.is_dir() else []
    weights = [name for name in names if name.endswith(".safetensors")]
    if WEIGHTS_NAME not in names and f"{WEIGHTS_NAME}.index.json" not in names:
        there = ", ".join(name for name in names if name != "config.json") or "nothing"
        raise BaseInvalid(
            f"{path} has no {WEIGHTS_NAME} (there is {there}); weights are read from safetensors only: load the model "
            "with diffusers "
            "and save it again with save_pretrained(folder, safe_serialization=True)"
        )
    try:
        # with output_loading_info it returns a pair, of which diffusers' annotations do not know
        found: Any = kind.from_pretrained(path, local_files_only=True, use_safetensors=True, output_loading_info=True)
    except (ValueError, RuntimeError, OSError) as error:
        raise BaseInvalid(f"{path} does not hold the weights of its own config.json: {error}") from None
    loaded, info = found
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        # diffusers only warns of these, and leaves random weights in their place
        if info[what]:
            raise BaseInvalid(
                f"{path} does not hold the weights of its own config.json: {what} {sorted(map(str, info[what]))[:5]}. "
                "Fetch it again"
            )
    module.load_state_dict(loaded.float().state_dict())
    return {f"{path.name}/{name}": file_sha256(path / name) for name in weights}
