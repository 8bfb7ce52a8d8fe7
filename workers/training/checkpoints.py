"""Checkpoints of a training: weights and optimiser in safetensors, written atomically."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from workers.data.fit import Fit

Settings = TypeVar("Settings", bound=BaseModel)


class CheckpointInvalid(ValueError):
    """A folder whose run cannot be resumed; the message says why, and what to do."""


def flatten_optimizer(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """An Adam state as flat named tensors, so that it can be saved as safetensors."""
    flat: dict[str, Tensor] = {}
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            flat[f"{prefix}{index}.{key}"] = value if isinstance(value, Tensor) else torch.tensor(value)
    return flat


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], prefix: str) -> None:
    """The inverse of :func:`flatten_optimizer`."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith(prefix):
            index, key = name[len(prefix) :].split(".", 1)
            state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            for key, value in optimizer.state[parameter].items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    # fused kernels walk raw memory: the moments need their parameter's memory layout (channels_last)
                    optimizer.state[parameter][key] = torch.empty_like(parameter).copy_(value)


def save_checkpoint(folder: Path, iteration: int, tensors: dict[str, Tensor], about: dict[str, Any]) -> Path:
    """Writes ``checkpoint.safetensors`` atomically; the last one becomes ``checkpoint-previous.safetensors``."""
    folder.mkdir(parents=True, exist_ok=True)
    path, fresh = folder / "checkpoint.safetensors", folder / "checkpoint.tmp"
    try:
        save_file(
            {name: value.detach().contiguous().cpu() for name, value in tensors.items()},
            fresh,
            metadata={"iteration": str(iteration), "about": json.dumps(about)},
        )
    except BaseException:
        fresh.unlink(missing_ok=True)  # half a checkpoint would fill the disk further
        raise
    if path.exists():
        os.replace(path, folder / "checkpoint-previous.safetensors")
    os.replace(fresh, path)
    return path


def load_checkpoint(folder: Path) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
    """(iteration, tensors, about) of the newest readable checkpoint in ``folder``, or None if there is none.

    Raises :class:`CheckpointInvalid` if there are checkpoints and none can be read: a new run would overwrite them.
    """
    damaged = []
    for name in ("checkpoint.safetensors", "checkpoint-previous.safetensors"):
        path = folder / name
        if not path.exists():
            continue
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
            return int(metadata["iteration"]), load_file(path), json.loads(metadata["about"])
        except (KeyError, ValueError):
            damaged.append(f"{path} holds no run")
        except (SafetensorError, OSError) as error:
            damaged.append(f"{path} is damaged ({error})")
    if damaged:
        raise CheckpointInvalid(
            f"{' and '.join(damaged)}; restore a good copy, choose another --out, or delete it to start over"
        )
    return None


def checkpoint_settings(folder: Path, about: dict[str, Any], kind: type[Settings]) -> Settings:
    """The settings in a checkpoint's ``about``. Raises :class:`CheckpointInvalid` if they are of another recipe."""
    try:
        return kind.model_validate(about["settings"])
    except (KeyError, ValidationError):
        raise CheckpointInvalid(
            f"{folder} holds a run of another `twinset train` command, or version; choose another --out"
        ) from None


def check_same_data(folder: Path, about: dict[str, Any], name: str, fit: Fit) -> None:
    """Raises :class:`CheckpointInvalid` if a checkpoint's run was trained on other data, or on data fitted otherwise.

    Its card would name one dataset, or one scale, for a model of two.
    """
    then = about.get("dataset", name)
    if then != name:
        raise CheckpointInvalid(f"{folder} holds a run on {then!r}, and the data is now {name!r}; choose another --out")
    fitted = Fit.model_validate(about.get("settings", {}).get("fit", {}))
    if fitted != fit:
        raise CheckpointInvalid(
            f"{folder} holds a run with {fitted.as_options()}, and it is now {fit.as_options()}; give the former, or "
            "choose another --out"
        )
