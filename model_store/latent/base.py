"""A latent base: the text-to-image model under a mask system, with its autoencoder and its text encoder.

Its folder is of one of two kinds: what ``twinset train base`` writes (``base.safetensors`` and ``base.json``), or a
Stable Diffusion 1.5 in diffusers' layout, which :mod:`model_store.latent.stable_diffusion` reads.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from pydantic import BaseModel, ValidationError
from safetensors.torch import load_file
from torch import Tensor, nn

from model_store.card import SamplerConvention
from model_store.latent.autoencoder import AutoencoderConfig
from model_store.latent.denoiser import DenoiserConfig
from model_store.latent.text import TokenEncoder

Value = TypeVar("Value", bound=BaseModel)
BASE_WEIGHTS, BASE_ABOUT = "base.safetensors", "base.json"
AUTOENCODER_WEIGHTS, AUTOENCODER_ABOUT = "autoencoder.safetensors", "autoencoder.json"


class BaseInvalid(ValueError):
    """A folder without a base, or with one that this version cannot run; the message names file, value and remedy."""


@dataclass(frozen=True, eq=False)
class LatentBase:
    """A loaded base. Its networks are float32 on the CPU, as they were stored.

    ``about`` is its provenance: ``kind``, ``name``, ``files`` (sha256 by name), ``data``, ``licence``, ``deviations``.
    """

    autoencoder: AutoencoderKL
    autoencoder_config: AutoencoderConfig
    unet: UNet2DConditionModel
    denoiser_config: DenoiserConfig
    convention: SamplerConvention
    tokens: TokenEncoder
    size_px: int
    about: dict[str, Any] = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """A sha256 that two bases share only if their weights and their text encoders are the same."""
        known = {"files": self.about["files"], "text_encoder": self.tokens.ref.model_dump(mode="json")}
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()

    def at_latent_size(self, latent_px: int) -> LatentBase:
        """The same networks for latents of another side: they are convolutional.

        Raises :class:`BaseInvalid` for a side that the U-Net cannot halve as often as it has levels.
        """
        times, factor = len(self.denoiser_config.widths) - 1, self.autoencoder_config.factor
        if latent_px < 2**times or latent_px % 2**times:
            raise BaseInvalid(
                f"a latent of {latent_px} px ({latent_px * factor} px of image) cannot be halved {times} times; "
                f"take a multiple of {2**times} ({2**times * factor} px of image)"
            )
        config = self.denoiser_config.model_copy(update={"latent_px": latent_px})
        return replace(self, denoiser_config=config, size_px=latent_px * factor)

    def at_size(self, size_px: int) -> LatentBase:
        """The same networks for images of another side. Raises :class:`BaseInvalid` if the latent has no such side."""
        factor = self.autoencoder_config.factor
        if size_px % factor:
            raise BaseInvalid(
                f"images of {size_px} px have no latent: the autoencoder makes them {factor} times smaller; take a "
                "multiple of it"
            )
        return self.at_latent_size(size_px // factor)


def read_about(path: Path, command: str) -> dict[str, Any]:
    """The JSON that a training wrote beside its weights.

    Raises :class:`BaseInvalid` unless it exists and is of format 1.
    """
    if not path.is_file():
        raise BaseInvalid(f"{path} does not exist; give a folder that '{command}' wrote")
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BaseInvalid(f"{path} is not JSON ({error})") from None
    found = about.get("format") if isinstance(about, dict) else None
    if not isinstance(about, dict) or found != 1:
        raise BaseInvalid(f"{path} is of format {found!r}; this version of twinset reads format 1")
    return about


def read_value(kind: type[Value], about: Mapping[str, Any], name: str, path: Path) -> Value:
    """``about[name]`` as a ``kind``. Raises :class:`BaseInvalid` naming the field."""
    try:
        return kind.model_validate(about.get(name))
    except ValidationError as error:
        wrong = error.errors()[0]
        raise BaseInvalid(
            f"{path}: {'.'.join(map(str, (name, *wrong['loc'])))} is {wrong['input']!r} ({wrong['msg']})"
        ) from None


def checked_weights(folder: Path, name: str, about: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a safetensors file, after a check of the sha256 that ``about`` gives.

    Raises :class:`BaseInvalid` if the file is missing or differs.
    """
    path = folder / name
    if not path.is_file():
        raise BaseInvalid(f"{path} does not exist, but its description does; fetch it, or train it again")
    found, wanted = file_sha256(path), about.get("files", {}).get(name)
    if found != wanted:
        raise BaseInvalid(f"{path} has sha256 {found}; its description says {wanted}. Fetch it again")
    return load_file(path)


def fill(module: nn.Module, tensors: Mapping[str, Tensor], prefix: str, path: Path) -> None:
    """Loads the tensors with ``prefix`` into a module, as float32.

    Raises :class:`BaseInvalid` unless they are exactly the module's own.
    """
    part = {key.removeprefix(prefix): value.float() for key, value in tensors.items() if key.startswith(prefix)}
    try:
        module.load_state_dict(part)
    except RuntimeError as error:
        raise BaseInvalid(f"{path} does not fit the network of its description: {error}") from None


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
