"""What every training shares: settings, per-iteration randomness, checkpoints, the log and the progress bar.

All randomness of an iteration comes from a generator seeded by (seed, iteration, process), so a run that resumes from a
checkpoint draws what the undisturbed run would have drawn, and nothing but weights and optimiser need saving.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ContextManager, TypeVar

import numpy as np
import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

Settings = TypeVar("Settings", bound=BaseModel)

NOISY_FIFTH = 0.2
"""The noisiest fifth of the timesteps, and its share of uniform draws."""


class CheckpointInvalid(ValueError):
    """A run's folder from which no run can go on; the message says why, and what to do."""


def iteration_generator(seed: int, iteration: int, process: int = 0) -> torch.Generator:
    """The CPU generator that all random draws of one iteration on one process come from."""
    digest = hashlib.sha256(f"twinset-training:{seed}:{iteration}:{process}".encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def stratified_timesteps(
    count: int, total: int, generator: torch.Generator, *, noisy_share: float = NOISY_FIFTH
) -> Tensor:
    """``(count,)`` int64 in [0, total): one draw from each of ``count`` equal stretches, in random order.

    Each is uniform by itself, as in CoSimGen's Algorithm 1, but together they cover the range, which makes the loss
    less noisy (Kingma et al. 2021, Variational Diffusion Models, appendix I). ``noisy_share`` (0 to 1, both excluded)
    is the share of the draws that fall to the noisiest fifth; a fifth is uniform.
    """
    places = (torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)) / count
    if noisy_share != NOISY_FIFTH:
        clear = 1.0 - noisy_share
        lower = places * ((1 - NOISY_FIFTH) / clear)
        places = torch.where(places < clear, lower, 1 - NOISY_FIFTH + (places - clear) * (NOISY_FIFTH / noisy_share))
    return (places * total).long().clamp(max=total - 1)


class EndlessRows:
    """An endless run through ``count`` rows, shuffled anew each time round; ``rows[position]`` is the row at a position
    of it.

    With ``repeats`` ``(count,)`` >= 1 a row comes that many times a round on average: a fraction is a chance, drawn
    anew each round.
    """

    def __init__(self, count: int, seed: int, repeats: np.ndarray | None = None) -> None:
        self._count, self._seed, self._epoch = count, seed, -1
        self._order = np.arange(count)
        self._ends = None if repeats is None else np.cumsum(repeats)
        if self._ends is not None:
            self._count = round(float(self._ends[-1]))

    def __getitem__(self, position: int) -> int:
        epoch, place = divmod(position, self._count)
        if epoch != self._epoch:
            rng = np.random.default_rng([self._seed, epoch])
            rows = np.arange(self._count) if self._ends is None else self._repeated(self._ends, rng)
            self._order, self._epoch = rng.permutation(rows), epoch
        return int(self._order[place])

    def _repeated(self, ends: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        # systematic sampling: equal steps from a random start along the rows laid end to end, each as long as its
        # repeats
        steps: np.ndarray = (np.arange(self._count) + rng.random()) * (ends[-1] / self._count)
        rows: np.ndarray = np.searchsorted(ends, steps, side="right").clip(max=len(ends) - 1)
        return rows


def learning_rate(iteration: int, *, base: float, warmup: int, total: int, decay_from: float) -> float:
    """Linear warm-up over ``warmup`` iterations, then ``base``, then linear to 0 from ``decay_from`` (0..1) of
    ``total`` on."""
    if iteration < warmup:
        return base * (iteration + 1) / warmup
    start = decay_from * total
    if iteration < start:
        return base
    return base * max(0.0, (total - iteration) / max(1.0, total - start))


def attention_kernel(device: torch.device) -> ContextManager[None]:
    """Attention by plain matrix products on the CPU, where torch's fused kernel is slow backwards; torch's choice
    elsewhere."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


class Ema:
    """An exponential moving average of a module's parameters, with the usual warm-up: decay = min(d, (1 + k) / (10 +
    k))."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.shadow = [parameter.detach().clone() for parameter in module.parameters()]

    @torch.no_grad()
    def update(self, module: nn.Module, iteration: int) -> None:
        """Moves the average towards the module's parameters."""
        decay = min(self.decay, (1 + iteration) / (10 + iteration))
        torch._foreach_lerp_(self.shadow, [p.detach() for p in module.parameters()], 1.0 - decay)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Writes the average into a module of the same shape."""
        for parameter, value in zip(module.parameters(), self.shadow, strict=True):
            parameter.copy_(value)


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
                    # fused kernels walk raw memory: the moments must lie as their parameter does (channels_last)
                    optimizer.state[parameter][key] = torch.empty_like(parameter).copy_(value)


def save_checkpoint(folder: Path, iteration: int, tensors: dict[str, Tensor], about: dict[str, Any]) -> Path:
    """Writes ``checkpoint.safetensors`` whole or not at all; the former one is kept as ``checkpoint-previous``."""
    folder.mkdir(parents=True, exist_ok=True)
    path, fresh = folder / "checkpoint.safetensors", folder / "checkpoint.tmp"
    try:
        save_file(
            {name: value.detach().contiguous().cpu() for name, value in tensors.items()},
            fresh,
            metadata={"iteration": str(iteration), "about": json.dumps(about)},
        )
    except BaseException:
        fresh.unlink(missing_ok=True)  # half a checkpoint would keep a full disk full
        raise
    if path.exists():
        os.replace(path, folder / "checkpoint-previous.safetensors")
    os.replace(fresh, path)
    return path


def load_checkpoint(folder: Path) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
    """(iteration, tensors, about) of the newest readable checkpoint in ``folder``, or None if there is none.

    Raises :class:`CheckpointInvalid` where there are some and none can be read: a run that began anew would write over
    them.
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
            f"{' and '.join(damaged)}; put a good copy there, choose another --out, or delete it to begin anew"
        )
    return None


def checkpoint_settings(folder: Path, about: dict[str, Any], kind: type[Settings]) -> Settings:
    """The settings in a checkpoint's ``about``. Raises :class:`CheckpointInvalid` if they are of another recipe's
    run."""
    try:
        return kind.model_validate(about["settings"])
    except (KeyError, ValidationError):
        raise CheckpointInvalid(
            f"{folder} holds a run of another `twinset train` command, or version; choose another --out"
        ) from None


def check_same_data(folder: Path, about: dict[str, Any], name: str) -> None:
    """Raises :class:`CheckpointInvalid` if a checkpoint's run learned from other data: its card would name one set, and
    hold two."""
    then = about.get("dataset", name)
    if then != name:
        raise CheckpointInvalid(
            f"{folder} holds a run on {then!r}, and the data are now {name!r}; choose another --out"
        )


class TrainingLog:
    """A JSON-lines log of the means over each interval, and a progress bar with the seconds left.

    A run that goes on from ``start`` takes back the lines of what a stopped one did behind that checkpoint, for it does
    it again. A line over less than an interval, which is so after a resumption and at the end, says over how many
    iterations in ``averaged``.
    """

    def __init__(self, path: Path, start: int, total: int, *, every: int, show: bool) -> None:
        self._path, self._every, self._show = path, every, show
        self._bar = tqdm(total=total, initial=start, disable=not show, unit="it", dynamic_ncols=True, smoothing=0.05)
        self._sums: dict[str, float] = {}
        self._count, self._since = 0, time.monotonic()
        if show and path.is_file():
            _take_back(path, start)

    def add(self, iteration: int, values: dict[str, float]) -> None:
        """Takes one iteration's figures; writes a line at every interval's end."""
        for key, value in values.items():
            self._sums[key] = self._sums.get(key, 0.0) + value
        self._count += 1
        self._bar.update(1)
        if (iteration + 1) % self._every == 0:
            self.note(iteration + 1)

    def note(self, done: int) -> None:
        """Writes the line of what was added since the last one, if anything was, after ``done`` iterations."""
        if not self._count:
            return
        now = time.monotonic()
        means = {key: round(total / self._count, 6) for key, total in self._sums.items()}
        line = {"iteration": done, **means, "seconds_per_iteration": round((now - self._since) / self._count, 4)}
        if self._count < self._every:
            line["averaged"] = self._count
        if self._show:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            self._bar.set_postfix({key: f"{value:.4g}" for key, value in means.items()})
        self._sums, self._count, self._since = {}, 0, now

    def close(self) -> None:
        """Ends the progress bar."""
        self._bar.close()


def _take_back(path: Path, start: int) -> None:
    """Keeps the lines of a log up to iteration ``start``; a last line that a kill cut short goes too."""
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["iteration"] <= start:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            continue
    fresh = path.with_suffix(".tmp")
    fresh.write_text("".join(kept), encoding="utf-8")
    fresh.replace(path)


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a training log."""
    for line in path.read_text(encoding="utf-8").splitlines():
        yield json.loads(line)
