"""Filling networks from safetensors, tensor by tensor, each at its final device and number format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from accelerate import init_empty_weights
from safetensors import safe_open
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


def zero_module(module: Module) -> Module:
    """Sets all parameters of a layer to zero, so that what it adds is nothing until it is trained."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def to_device(module: Module, device: torch.device | str) -> Module:
    """Moves a network to a device by torch's own method; diffusers' override loses the network's type."""
    return nn.Module.to(module, device)


def to_channels_last(
    module: Module, device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> Module:
    """Moves a network to a device and number format, with the weights of its convolutions channels last in memory.

    It calls torch's own method, because diffusers' override warns about models with parts to keep in float32.
    """
    # torch's stubs do not list memory_format together with the other arguments
    nn.Module.to(module, device=device, dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return module


def load_network(
    build: Callable[[], Module],
    path: Path,
    prefix: str,
    *,
    device: torch.device | str = "cpu",
    dtype: Callable[[str], torch.dtype] = lambda _: torch.float32,
) -> Module:
    """Builds a network without memory for its weights, and fills it from the tensors of ``path`` with the ``prefix``.

    ``dtype`` gives the number format of a parameter by its name in the network. Beside the network itself there is
    never more in memory than the tensor being read. Raises RuntimeError, as ``load_state_dict`` does, unless names and
    shapes fit.
    """
    with init_empty_weights():
        network = build()
    network.load_state_dict(_read(path, prefix, device, dtype), assign=True)
    return network


def _read(
    path: Path, prefix: str, device: torch.device | str, dtype: Callable[[str], torch.dtype]
) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    with safe_open(path, "pt") as file:
        for full in file.keys():  # noqa: SIM118 -- an open safetensors file is no mapping, and cannot be iterated
            if not full.startswith(prefix):
                continue
            name, tensor = full.removeprefix(prefix), file.get_tensor(full)
            # a copy in any case: what is mapped from the file would change, or crash, with it
            tensors[name] = tensor.to(device, dtype(name) if tensor.is_floating_point() else tensor.dtype, copy=True)
    return tensors


def memory_bytes(system: object) -> int:
    """Bytes of the weights that a loaded model holds: the parameters and buffers of all its networks."""
    seen: dict[int, int] = {}
    for part in vars(system).values():
        if isinstance(part, nn.Module):
            for tensor in (*part.parameters(), *part.buffers()):
                seen[id(tensor)] = tensor.numel() * tensor.element_size()
    return sum(seen.values())
