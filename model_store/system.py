"""What a loaded model can do: condition -> denoise -> decode, the one interface of the three systems."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Protocol, Sequence

import torch
from torch import Tensor

from model_store.card import Card, load_card
from model_store.decode import Twin


class WeightsInvalid(RuntimeError):
    """A model folder whose weights are missing, or are not those of its card; the message names the file and both hashes."""


@dataclass(frozen=True)
class ConditionRequest:
    """What one sample is asked to show: a prompt, or class names; exactly one."""

    prompt: str | None = None
    classes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if (self.prompt is None) == (self.classes is None):
            raise ValueError("a condition is a prompt or classes, exactly one")


class System(Protocol):
    """A loaded model. ``x`` and all sampling arithmetic are float32; ``dtype`` is the network's own."""

    card: Card
    sample_shape: tuple[int, int, int]
    device: torch.device
    dtype: torch.dtype

    def condition(self, requests: Sequence[ConditionRequest]) -> Tensor:
        """Conditions ``(B, D)`` float32 on the device."""

    def null_condition(self, count: int) -> Tensor:
        """The null condition, ``(count, D)`` float32."""

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """x ``(B, C, h, w)`` float32, t ``(B,)`` int64, condition ``(B, D)`` -> the network's output, ``(B, C, h, w)`` float32."""

    def decode(self, x0: Tensor, size_px: int) -> list[Twin]:
        """x_0 ``(B, C, h, w)`` -> twins of ``size_px``, one of the card's sizes (ValueError for any other)."""


def choose_device(device: str) -> torch.device:
    """``auto`` is CUDA where there is one, else the CPU; anything else is torch's name for a device."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """``auto`` is bfloat16 on CUDA and on CPUs with bfloat16 instructions, else float32; or a name: bfloat16, float32, float16."""
    if dtype != "auto":
        named = getattr(torch, dtype, None)
        if named not in (torch.bfloat16, torch.float32, torch.float16):
            raise ValueError(f"dtype {dtype!r} is none of auto, bfloat16, float32, float16")
        return named
    if device.type == "cuda":
        return torch.bfloat16
    fast = any(getattr(torch.cpu, name, bool)() for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return torch.bfloat16 if fast else torch.float32


def check_files(folder: Path, card: Card) -> None:
    """Compares every file of the card with its sha256. Raises :class:`WeightsInvalid`."""
    if not card.files:
        raise WeightsInvalid(f"the card of {card.id} lists no files, so its weights cannot be checked")
    for name, file in card.files.items():
        path = folder / name
        if not path.is_file():
            raise WeightsInvalid(f"{path} is missing; {card.id} needs it ({file.bytes} bytes)")
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != file.sha256:
            raise WeightsInvalid(f"{path} has sha256 {found}; the card of {card.id} says {file.sha256}. Fetch it again")


def load_system(folder: Path | str, *, device: str = "auto", dtype: str = "auto") -> System:
    """Loads a model folder (``card.json`` and safetensors) after checking its hashes.

    Raises :class:`model_store.card.CardInvalid`, :class:`WeightsInvalid`, or ValueError for a system this version lacks.
    """
    folder = Path(folder)
    card = load_card(folder)
    check_files(folder, card)
    where = choose_device(device)
    return _loader(card.system)(folder, card, where, choose_dtype(dtype, where))


def _loader(system: str) -> Callable[[Path, Card, torch.device, torch.dtype], System]:
    if system == "cosimgen":
        from model_store.cosimgen.system import CoSimGenSystem

        return CoSimGenSystem.load
    raise ValueError(f"this version of twinset cannot run the system {system!r}; it runs: cosimgen")
