"""Cache of trained auxiliary models: one file each, named by the settings and data that decided its weights."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn


def cached_path(cache: Path, name: str, key: dict[str, Any]) -> Path:
    """The file of the weights that belong to ``key`` (JSON-able: settings, data, split)."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    return cache / f"{name}-{digest}.safetensors"


def load_cached(path: Path, network: nn.Module) -> bool:
    """Fills ``network`` from ``path`` and sets it to eval mode; False if the file is missing or damaged."""
    if not path.is_file():
        return False
    try:
        network.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError):
        return False  # the caller trains it again and overwrites the file
    network.eval()
    return True


def save_cached(path: Path, network: nn.Module) -> None:
    """Writes the weights atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".tmp")
    save_file({name: value.contiguous().cpu() for name, value in network.state_dict().items()}, fresh)
    fresh.replace(path)
