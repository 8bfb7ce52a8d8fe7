"""The forward of a model over its canonical shape: eager, compiled, as one CUDA graph, or both.

Compiling and graphs need one shape, which is what the engine's batches have. Each way gives different bits, so the
record names the way.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from model_store.interface import Condition, System

Forward = Callable[[Tensor, Tensor, Condition], Tensor]
_WARM_UPS = 3


@dataclass(frozen=True)
class ForwardWay:
    """How a forward runs. ``compiled``: by torch.compile. ``graph``: replayed as a CUDA graph, on CUDA only."""

    compiled: bool = False
    graph: bool = False

    def __str__(self) -> str:
        return (
            ", ".join(name for name, on in (("compiled", self.compiled), ("cuda graph", self.graph)) if on) or "eager"
        )


EAGER = ForwardWay()
"""Neither compiled nor a graph."""


def build_forward(system: System, rows: int, way: ForwardWay) -> Forward:
    """The forward over exactly ``rows`` rows, warmed up, so that the first step does not wait.

    The next call may overwrite its output. Raises what compiling or capturing raises, and ``torch.OutOfMemoryError``.
    """
    forward: Forward = torch.compile(system.forward, dynamic=False) if way.compiled else system.forward
    example = _example(system, rows)
    with torch.inference_mode():
        forward(*example)
        if way.graph and system.device.type == "cuda":
            forward = GraphedForward(forward, example)
    return forward


class GraphedForward:
    """A forward captured as a CUDA graph: one launch a step instead of one a kernel (Nguyen et al., PyTorch 1.10)."""

    def __init__(self, forward: Forward, example: tuple[Tensor, Tensor, dict[str, Tensor]]) -> None:
        self._x, self._t, self._condition = example
        self._copied: Condition | None = None
        side = torch.cuda.Stream(self._x.device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(self._x.device))
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                forward(self._x, self._t, self._condition)
        torch.cuda.current_stream(self._x.device).wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        # other threads decode and load on the same device at the same time
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._output = forward(self._x, self._t, self._condition)

    def __call__(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        self._x.copy_(x)
        self._t.copy_(t)
        if condition is not self._copied:
            # the batch keeps the same conditions until a sample joins or leaves
            for name, value in condition.items():
                self._condition[name].copy_(value)
            self._copied = condition
        self._graph.replay()
        return self._output


class ForwardClock:
    """Times forwards on their device. On CUDA a time is known some steps later, as the engine never waits."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._pending: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()
        self._seconds: list[float] = []

    def run(self, forward: Forward, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Runs ``forward``, timed, and returns its output."""
        if self._cuda:
            began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            began.record()
            output = forward(x, t, condition)
            ended.record()
            self._pending.append((began, ended))
            return output
        since = time.perf_counter()
        output = forward(x, t, condition)
        self._seconds.append(time.perf_counter() - since)
        return output

    def take(self) -> list[float]:
        """The times in seconds that have become known since the last call."""
        while self._pending and self._pending[0][1].query():  # type: ignore[no-untyped-call]
            began, ended = self._pending.popleft()
            self._seconds.append(began.elapsed_time(ended) / 1e3)
        taken, self._seconds = self._seconds, []
        return taken


def _example(system: System, rows: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    x = torch.zeros((rows, *system.sample_shape), device=system.device)
    t = torch.zeros(rows, dtype=torch.int64, device=system.device)
    return (
        x,
        t,
        {name: torch.zeros((rows, *shape), device=system.device) for name, shape in system.condition_shapes.items()},
    )
