"""Loading a model folder: its device, its number format, its checked files, and the system that runs it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch

from model_store.card import ModelCard, load_card
from model_store.interface import System, WeightsInvalid

NUMBER_FORMATS = {"bfloat16": torch.bfloat16, "float32": torch.float32, "float16": torch.float16}


def choose_device(device: str) -> torch.device:
    """``auto`` is CUDA if torch finds a GPU, else the CPU; anything else is torch's name of a device.

    Raises ValueError for an unknown name, and for a CUDA device where torch finds no GPU.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError:
        raise ValueError(f"torch knows no device {device!r}; give auto, cpu or cuda") from None
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device {device!r} is asked for, but torch {torch.__version__} finds no CUDA GPU here; give auto or cpu"
        )
    return found


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The number format: ``bfloat16``, ``float32`` or ``float16`` by name, or ``auto``.

    ``auto`` is bfloat16 on CUDA and on CPUs with bfloat16 instructions, else float32.
    """
    if dtype != "auto":
        if dtype not in NUMBER_FORMATS:
            raise ValueError(f"dtype {dtype!r} is unknown; give auto, {', '.join(NUMBER_FORMATS)}")
        return NUMBER_FORMATS[dtype]
    if device.type == "cuda":
        return torch.bfloat16
    fast = any(getattr(torch.cpu, name, bool)() for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return torch.bfloat16 if fast else torch.float32


def check_files(folder: Path, card: ModelCard) -> None:
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

    Raises :class:`model_store.card.CardInvalid`, :class:`WeightsInvalid`, or ValueError for a system this version
    lacks.
    """
    folder = Path(folder)
    card = load_card(folder)
    check_files(folder, card)
    chosen = choose_device(device)
    return _loader(card.system)(folder, card, chosen, choose_dtype(dtype, chosen))


def _loader(system: str) -> Callable[[Path, ModelCard, torch.device, torch.dtype], System]:
    if system == "cosimgen":
        from model_store.cosimgen.system import CoSimGenSystem

        return CoSimGenSystem.load
    if system == "siamese-diffusion":
        from model_store.siamese_diffusion.system import SiameseDiffusionSystem

        return SiameseDiffusionSystem.load
    if system == "pathdiff":
        from model_store.pathdiff.system import PathDiffSystem

        return PathDiffSystem.load
    raise ValueError(
        f"this version of twinset cannot run the system {system!r}; it runs: cosimgen, siamese-diffusion, pathdiff"
    )
