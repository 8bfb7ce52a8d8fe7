"""Keeping trained judges: one file each, named by all that decided its weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn


def kept_path(cache: Path, name: str, key: dict[str, Any]) -> Path:
    """Where the weights lie that ``key`` (JSON-able: settings, data, split) leads to."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    return cache / f"{name}-{digest}.safetensors"


def content_sha256(paths: Iterable[Path]) -> str:
    """One digest of the bytes of files, in their order: a judge of images that were since changed, or relabelled, is
    another."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def read_kept(path: Path, network: nn.Module) -> bool:
    """Fills ``network`` from ``path`` and sets it to eval mode; False if nothing is kept there, or it is damaged."""
    if not path.is_file():
        return False
    try:
        network.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError):
        return False  # whoever asked trains it again and writes over it
    network.eval()
    return True


def keep(path: Path, network: nn.Module) -> None:
    """Writes the weights whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".tmp")
    save_file({name: value.contiguous().cpu() for name, value in network.state_dict().items()}, fresh)
    fresh.replace(path)
