"""Fakes for the workers' tests: a tiny system with real weights, a queue in memory, stores that fail or count."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model_store.canvas.windows import Windows
from model_store.card import ClassEntry, ModelCard, PaletteRef, SamplerConvention, WeightsFile
from model_store.interface import Condition, ConditionRequest, GuidanceInputs
from model_store.masks.decode import Twin, decode_pairs
from service.broker.priority import Priority
from service.errors import StoreUnavailable
from service.jobs.spec import JobSpec
from service.kit.ids import new_job_id
from service.store.base import ObjectInfo
from service.store.folder import FolderStore

CLASSES = (("land", (200, 40, 40)), ("water", (40, 60, 220)), ("road", (60, 220, 80)))
CONDITION_DIMS = 8
WEIGHTS = b"tiny"
WEIGHTS_SHA256 = hashlib.sha256(WEIGHTS).hexdigest()


def tiny_card(**changes: Any) -> ModelCard:
    """The card of :class:`TinySystem`: three classes, 8 px."""
    values: dict[str, Any] = {
        "name": "tiny",
        "version": "1.0.0",
        "system": "cosimgen",
        "title": "Tiny",
        "description": "A network for tests.",
        "inputs": ("prompt", "classes"),
        "classes": tuple(ClassEntry(index=i, name=name, colour=colour) for i, (name, colour) in enumerate(CLASSES)),
        "palette": PaletteRef(count=len(CLASSES)),
        "generation_size_px": 8,
        "sizes_px": (8,),
        "default_size_px": 8,
        "sampler": SamplerConvention(prediction_type="v_prediction"),
        "intended_use": "tests",
        "limits_of_use": "tests only",
        "licence": "Apache-2.0",
        "files": {"model.safetensors": WeightsFile(sha256=WEIGHTS_SHA256, bytes=4)},
    }
    return ModelCard(**(values | changes))


class TinyNetwork(nn.Module):
    """Convolutions, a norm and linear layers: the kinds of arithmetic whose bits could depend on a batch."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.into = nn.Conv2d(6, width, 3, padding=1)
        self.condition = nn.Linear(CONDITION_DIMS + 2, width)
        self.norm = nn.GroupNorm(4, width)
        self.middle = nn.Conv2d(width, width, 3, padding=1)
        self.out = nn.Conv2d(width, 6, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        phase = t.to(x.dtype)[:, None] / 1000.0
        shift = self.condition(torch.cat([condition, phase.sin(), phase.cos()], dim=1))
        hidden = self.into(x) + shift[:, :, None, None]
        hidden = hidden + self.middle(torch.nn.functional.silu(self.norm(hidden)))
        return self.out(torch.nn.functional.silu(hidden))


class TinySystem:
    """A ``System`` over :class:`TinyNetwork`. The prompt "nan" conditions on NaN: a sample that fails by itself."""

    def __init__(self, card: ModelCard | None = None, *, dtype: torch.dtype = torch.float32) -> None:
        self.card = card or tiny_card()
        self.device, self.dtype = torch.device("cpu"), dtype
        self.sample_shape = (6, self.card.generation_size_px, self.card.generation_size_px)
        self.condition_shapes = {"class": (CONDITION_DIMS,)}
        self.forwards: list[int] = []
        with torch.random.fork_rng():
            torch.manual_seed(7)
            self.network = TinyNetwork().eval().requires_grad_(False).to(dtype, memory_format=torch.channels_last)
        self._colours = torch.tensor([colour for _, colour in CLASSES]) / 127.5 - 1.0

    def guidance_inputs(self, request: ConditionRequest) -> GuidanceInputs:
        return GuidanceInputs({"class": _condition(request)}, {"class": torch.zeros(CONDITION_DIMS)})

    def forward(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        self.forwards.append(len(x))
        x = x.to(self.dtype, memory_format=torch.channels_last)
        return self.network(x, t, condition["class"].to(self.dtype)).float()

    def decode(self, x0: Tensor, size_px: int, windows: Windows | None = None) -> list[Twin]:
        assert len(x0) == 1, "twins are decoded one at a time"
        return decode_pairs(x0, x0, self._colours, 0.05)


def _condition(request: ConditionRequest) -> Tensor:
    if request.prompt == "nan":
        return torch.full((CONDITION_DIMS,), torch.nan)
    if request.prompt is not None:
        digest = hashlib.sha256(request.prompt.encode()).digest()
        return torch.tensor([byte / 128.0 - 1.0 for byte in digest[:CONDITION_DIMS]])
    names = [name for name, _ in CLASSES]
    vector = torch.zeros(CONDITION_DIMS)
    vector[[names.index(name) for name in request.classes or ()]] = 1.0
    return vector


def tiny_spec(card: ModelCard | None = None, **changes: Any) -> JobSpec:
    """The spec of a small job for the tiny system."""
    card = card or tiny_card()
    now = datetime.now(UTC)
    values: dict[str, Any] = {
        "job": new_job_id(now),
        "created_at": now,
        "model": card.id,
        "weights_sha256": WEIGHTS_SHA256,
        "system": card.system,
        "classes": ("water",),
        "count": 5,
        "seed": 11,
        "steps": 4,
        "guidance_scale": 2.0,
        "eta": 0.0,
        "size": 8,
        "sampler": card.sampler,
        "chunk_size": 2,
        "request": {},
    }
    return JobSpec(**(values | changes))


@dataclass
class Post:
    """A queue in memory: chunks wait here until a test delivers them. ``interactive``: those of that priority."""

    waiting: deque[tuple[str, int]] = field(default_factory=deque)
    sent: list[tuple[str, int]] = field(default_factory=list)
    interactive: list[tuple[str, int]] = field(default_factory=list)

    def send_chunk(self, job: str, chunk: int, priority: Priority = "normal", tenant: str = "default") -> None:
        self.waiting.append((job, chunk))
        self.sent.append((job, chunk))
        if priority == "interactive":
            self.interactive.append((job, chunk))

    def send_chunks(
        self, job: str, chunks: Sequence[int], priority: Priority = "normal", tenant: str = "default"
    ) -> None:
        for chunk in chunks:
            self.send_chunk(job, chunk, priority, tenant)

    def deliver_all(self, task: Callable[[str, int], object]) -> Iterator[int]:
        """Delivers until no chunk waits, yielding how many wait after each delivery."""
        while self.waiting:
            task(*self.waiting.popleft())
            yield len(self.waiting)


class FailingStore(FolderStore):
    """A folder store that fails writes whose key holds ``fail_on``, before they happen or just after."""

    fail_on: str | None = None
    after_success = False

    def put(self, key: str, data: bytes, **options: Any) -> ObjectInfo:
        return self._failing(super().put, key, data, **options)

    def put_file(self, key: str, path: Path, **options: Any) -> ObjectInfo:
        return self._failing(super().put_file, key, path, **options)

    def _failing(self, write: Callable[..., ObjectInfo], key: str, *arguments: Any, **options: Any) -> ObjectInfo:
        failing = self.fail_on is not None and self.fail_on in key
        if failing and not self.after_success:
            raise StoreUnavailable(f"{key} could not be written: the test says so")
        info = write(key, *arguments, **options)
        if failing:
            raise StoreUnavailable(f"{key} may have been written: the test does not say")
        return info


class CountingStore(FolderStore):
    """A folder store that records the keys that were read."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.read: list[str] = []

    def get(self, key: str, **options: Any) -> bytes:
        self.read.append(key)
        return super().get(key, **options)

    def head(self, key: str) -> ObjectInfo | None:
        self.read.append(key)
        return super().head(key)
