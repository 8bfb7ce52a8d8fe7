"""Check of a safetensors file by its header, without torch: eight bytes of length, JSON, then the tensors' bytes.

The format holds numbers alone and no code, unlike a pickle. The header must describe every byte of the file exactly
once, as the reference reader demands too.
"""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeGuard

MAX_HEADER_BYTES = 100_000_000
"""What the reference reader accepts."""
_LENGTH_BYTES = 8
_DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip
_PICKLES = (b"\x80", b"PK\x03\x04", b"(dp", b"c__")
"""The beginnings of pickles: of protocol 2 and later, of a zip by torch.save, and of older ones."""


def check_safetensors(path: Path) -> int:
    """The number of tensors in the file. Raises ValueError, which says what is wrong with it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        beginning = file.read(_LENGTH_BYTES)
        if beginning.startswith(_PICKLES) and not _may_be_length(beginning, size):
            raise ValueError("it is a pickle, which may run code when it is read; save it as safetensors")
        if len(beginning) < _LENGTH_BYTES:
            raise ValueError(f"it has {size} bytes, too few for a safetensors file")
        length = int.from_bytes(beginning, "little")
        if not 2 <= length <= min(MAX_HEADER_BYTES, size - _LENGTH_BYTES):
            raise ValueError(
                f"its header would have {length} bytes of the file's {size}; it is cut off, or no safetensors file"
            )
        text = file.read(length)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("its header is not JSON; it is damaged, or no safetensors file") from None
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    header.pop("__metadata__", None)
    _check_ranges([_tensor_range(name, entry) for name, entry in header.items()], size - _LENGTH_BYTES - length)
    return len(header)


def _may_be_length(beginning: bytes, size: int) -> bool:
    """Whether the bytes are also a possible length of a header: 128 is one, and begins like a pickle."""
    return 2 <= int.from_bytes(beginning, "little") <= size


def _tensor_range(name: str, entry: Any) -> tuple[int, int]:
    """Where the tensor's bytes begin and end."""
    if not isinstance(entry, dict):
        raise ValueError(f"the entry of tensor {name[:80]!r} is not a JSON object")
    bits = _DTYPE_BITS.get(str(entry.get("dtype")))
    shape, offsets = entry.get("shape"), entry.get("data_offsets")
    if bits is None:
        raise ValueError(f"tensor {name[:80]!r} has dtype {str(entry.get('dtype'))[:20]!r}, which is not known")
    if not _are_numbers(shape) or not _are_numbers(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"tensor {name[:80]!r} has no shape and data_offsets of whole numbers")
    needed = math.prod(shape) * bits // 8
    if offsets[1] - offsets[0] != needed:
        raise ValueError(
            f"tensor {name[:80]!r} has {offsets[1] - offsets[0]} bytes, but its shape and dtype take {needed}"
        )
    return offsets[0], offsets[1]


def _are_numbers(values: Any) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**63 for value in values)


def _check_ranges(ranges: list[tuple[int, int]], size: int) -> None:
    """Raises ValueError unless the ranges cover ``size`` bytes without gaps and overlaps."""
    ranges.sort()
    end = ranges[-1][1] if ranges else 0
    if (ranges and ranges[0][0] != 0) or any(former[1] != later[0] for former, later in pairwise(ranges)):
        raise ValueError("its tensors overlap, or leave bytes between them that none has")
    if end != size:
        raise ValueError(f"its tensors take {end} bytes, but {size} follow the header; it is cut off, or has more")
