"""Batches of pairs by iteration, decoded ahead by worker processes; the same ones whatever their number."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader, Dataset

from service.kit.cores import usable_cores
from workers.data.pairs import DEFAULT_CACHE_BYTES, FittedPairs, JoinedPairs, Pair, stacked
from workers.data.tiles import PairDraw

MAX_AUTOMATIC_WORKERS = 8
_AHEAD = 4
"""Batches that each worker process decodes ahead."""


@dataclass(frozen=True)
class InputOptions:
    """How pairs are read, which changes no batch: worker processes (None: as many as help), bytes of decoded pairs."""

    workers: int | None = None
    cache_bytes: int = DEFAULT_CACHE_BYTES

    def processes(self, fits_in_cache: bool) -> int:
        """The number of worker processes: none for pairs that stay in memory, unless it is given."""
        if self.workers is not None:
            return self.workers
        return 0 if fits_in_cache else min(MAX_AUTOMATIC_WORKERS, max(1, usable_cores() - 1))


class PairStream:
    """The pairs of each iteration. ``draws`` names them; it is a pure function of the iteration."""

    def __init__(
        self, pairs: FittedPairs | JoinedPairs, draws: Callable[[int], Sequence[PairDraw]], options: InputOptions
    ) -> None:
        self._pairs, self._draws = pairs, draws
        self._workers = options.processes(pairs.fits_in_cache)
        self._batches: Iterator[tuple[torch.Tensor, torch.Tensor]] | None = None
        self._next = -1

    def batch(self, iteration: int) -> Pair:
        """Images ``(B, s, s, 3)`` and masks ``(B, s, s)`` of an iteration; the next are decoded meanwhile."""
        if not self._workers:
            return stacked(self._pairs, self._draws(iteration))
        if self._batches is None or iteration != self._next:
            self._batches = iter(self._loader(iteration))
        images, masks = next(self._batches)
        self._next = iteration + 1
        return images.numpy(), masks.numpy()

    def close(self) -> None:
        """Ends the worker processes."""
        self._batches = None

    def _loader(self, first: int) -> DataLoader[tuple[torch.Tensor, torch.Tensor]]:
        share = self._workers

        def batches() -> Iterator[list[PairDraw]]:
            iteration = first
            while True:
                yield list(self._draws(iteration))
                iteration += 1

        parts = self._pairs.parts if isinstance(self._pairs, JoinedPairs) else (self._pairs,)
        limited = [part.limited(part.cache_bytes // share) for part in parts]
        return DataLoader(
            _Decoded(JoinedPairs(limited) if len(limited) > 1 else limited[0]),
            batch_sampler=_Sampler(batches),
            num_workers=self._workers,
            prefetch_factor=_AHEAD,
            # else it draws from the generator of the process, and another number of workers would give another run
            generator=torch.Generator(),
            # forked workers share the index, and start at once
            multiprocessing_context="fork" if sys.platform == "linux" else None,
        )


class _Sampler:
    """An endless batch sampler."""

    def __init__(self, batches: Callable[[], Iterator[list[PairDraw]]]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[list[PairDraw]]:
        return self._batches()


class _Decoded(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """The pairs as torch's loader asks for them: by draw."""

    def __init__(self, pairs: FittedPairs | JoinedPairs) -> None:
        self._pairs = pairs

    def __getitem__(self, draw: PairDraw) -> tuple[torch.Tensor, torch.Tensor]:
        image, mask = self._pairs.pair(draw)
        return torch.tensor(image), torch.tensor(mask)

    def __len__(self) -> int:
        return len(self._pairs)
