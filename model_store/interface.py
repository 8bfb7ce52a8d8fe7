"""The interface of a loaded model, the same for all systems: condition -> denoise -> decode."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from model_store.canvas.windows import Windows
from model_store.card import GuidanceTarget, ModelCard
from model_store.masks.decode import Twin


class WeightsInvalid(RuntimeError):
    """Weights that are missing or do not match the model's card; the message names the file and both hashes."""


@dataclass(frozen=True)
class MaskInput:
    """A mask that a sample shall follow: class indices ``(H, W)`` uint8, each of them a class of the card.

    ``instances`` ``(H, W)`` int32 number its objects, 0 for none; None where they are not known. Two are equal if their
    fingerprints are, so that what is computed from one can be cached for the next.
    """

    sha256: str
    indices: np.ndarray = field(repr=False, compare=False)
    instances: np.ndarray | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, indices: np.ndarray, instances: np.ndarray | None = None) -> MaskInput:
        """The input for ``indices`` and ``instances``; the fingerprint covers shape and pixels.

        Raises ValueError unless they are ``(H, W)`` uint8, and ``(H, W)`` int32.
        """
        if indices.ndim != 2 or indices.dtype != np.uint8:
            raise ValueError(f"a mask is (H, W) uint8 class indices, not {indices.shape} {indices.dtype}")
        digest = hashlib.sha256(repr(indices.shape).encode() + np.ascontiguousarray(indices).tobytes())
        if instances is not None:
            if instances.shape != indices.shape or instances.dtype != np.int32:
                raise ValueError(
                    f"an instance map is {indices.shape} int32 as its mask, not {instances.shape} {instances.dtype}"
                )
            digest.update(np.ascontiguousarray(instances).tobytes())
        return cls(digest.hexdigest(), indices, instances)


@dataclass(frozen=True)
class ConditionRequest:
    """The condition of one sample: classes alone, or a prompt, or a mask, or prompt and mask.

    ``guidance_target`` is for systems whose card lists several.
    """

    prompt: str | None = None
    classes: tuple[str, ...] | None = None
    mask: MaskInput | None = None
    guidance_target: GuidanceTarget | None = None

    def __post_init__(self) -> None:
        if self.classes is None and self.prompt is None and self.mask is None:
            raise ValueError("a condition needs classes, a prompt or a mask")
        if self.classes is not None and (self.prompt is not None or self.mask is not None):
            raise ValueError("classes are a condition by themselves, without prompt and mask")


Condition = Mapping[str, Tensor]
"""What the network sees of one request: tensors by name, without a batch dimension, of the same shapes for all of a
model."""


@dataclass(frozen=True, eq=False)
class GuidanceInputs:
    """The two inputs of guidance: output = f(uncond) + scale * (f(cond) - f(uncond)).

    They are the same object if the request gives guidance nothing to compare.
    """

    cond: Condition
    uncond: Condition


def stack_conditions(conditions: Sequence[Condition]) -> dict[str, Tensor]:
    """The conditions of ``B`` samples as a batch: each tensor becomes ``(B, ...)``."""
    return {name: torch.stack([condition[name] for condition in conditions]) for name in conditions[0]}


class System(Protocol):
    """A loaded model. ``x`` and all sampling arithmetic are float32; ``dtype`` is the network's own.

    ``sample_shape`` is ``(C, h, w)`` of what is denoised: a pair, or a latent; ``condition_shapes`` those of a
    condition's tensors.
    """

    @property
    def card(self) -> ModelCard: ...

    @property
    def sample_shape(self) -> tuple[int, int, int]: ...

    @property
    def condition_shapes(self) -> Mapping[str, tuple[int, ...]]: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def guidance_inputs(self, request: ConditionRequest) -> GuidanceInputs:
        """The conditions of one sample, on the device: all that does not depend on the timestep, computed once.

        Raises ValueError for a request that the model cannot take.
        """

    def forward(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """The network's output ``(B, C, h, w)`` float32, for stacked conditions.

        x ``(B, C, h, w)`` float32, t ``(B,)`` int64.
        """

    def decode(self, x0: Tensor, size_px: int, windows: Windows | None = None) -> list[Twin]:
        """x_0 ``(B, C, h, w)`` -> twins of ``size_px``, one of the card's sizes (ValueError for any other).

        Of a canvas, ``windows`` are those it was drawn by, and ``size_px`` is the side of a window in the twin. A
        system that is given its masks leaves ``Twin.mask`` at None.
        """
