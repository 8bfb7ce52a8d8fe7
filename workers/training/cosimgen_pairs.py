"""The pairs of a CoSimGen run: which of them are drawn, their class sets, and the batch of each iteration."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from model_store.masks.palette import fibonacci_rgb, paint
from workers.data.listings import DatasetInvalid
from workers.data.pairs import FittedPairs
from workers.data.pixels import PRESENT_SHARE, clear_rows, dihedral, present_classes, repeat_factors
from workers.data.stream import InputOptions, PairStream
from workers.data.tiles import PairDraw, TilePlan
from workers.data.training_set import TrainingSet
from workers.training.cosimgen_settings import CoSimGenTraining
from workers.training.input import SAMPLED_TILES, Rows, as_draws, training_rows
from workers.training.prompts import PromptBank


class CoSimGenPairs:
    """The drawn pairs of a training set.

    ``stems``: the images that they are of. ``present`` ``(N, K)`` bool: the class sets of the pairs, or of some tiles
    that stand for all; ``named``: the image of each set, "" for tiles, for what a caption says of an image need not
    hold for its tiles. ``data``: the set, in which only what the pairs show can be requested.
    """

    def __init__(
        self,
        data: TrainingSet,
        settings: CoSimGenTraining,
        accelerator: Accelerator,
        options: InputOptions,
        encode: Callable[[Sequence[str]], Tensor],
        turns: int,
    ) -> None:
        """``encode`` is the sentence transformer's, ``turns`` the number of flips and turns that are drawn from.

        Raises :class:`DatasetInvalid` if there is no class to learn.
        """
        self._settings, self._accelerator, self._turns = settings, accelerator, turns
        self._queryable = np.array([entry.queryable for entry in data.classes])
        self._colours = fibonacci_rgb(len(data.classes))
        stems = data.stems("train")
        pairs = data.pairs(settings.network.size_px, stems, cache_bytes=options.cache_bytes)
        counts = self._counts(data, pairs)
        if data.fit.kind == "tiles":
            self.stems, self._places = stems, np.arange(len(stems))
            self._rows: Rows = training_rows(data, stems, settings.seed)
            found, shown = self._sampled(pairs), counts.sum(axis=0) > 0
            self.named: Sequence[str] = [""] * len(found)
        else:
            shares = counts / pairs.size_px**2
            self._places = clear_rows(shares, self._queryable, settings.presence_margin)
            self.named = self.stems = tuple(stems[row] for row in self._places)
            found = shares[self._places] >= PRESENT_SHARE
            shown = found.sum(axis=0) > 0
            below, present = settings.repeat_below, found & self._queryable
            self._rows = training_rows(
                data, self.stems, settings.seed, lambda: repeat_factors(present, below) if below else None
            )
        self.present: np.ndarray = found & self._queryable
        self.stream = PairStream(pairs, self._draws, options)
        self.data = data.trained_on(shown)
        self._prompts = PromptBank(self.data, self.present, self.named, encode)

    def batch(self, iteration: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """This process's pairs ``(B, 6, h, w)``, their class sets ``(B, K)`` and a text embedding each ``(B, 384)``."""
        images, masks = self.stream.batch(iteration)
        turns = torch.randint(self._turns, (len(images),), generator=generator).tolist()
        painted = [
            np.concatenate(
                [
                    dihedral(image, turn).astype(np.float32) / 127.5 - 1.0,
                    paint(dihedral(mask, turn), self._colours),
                ],
                axis=-1,
            )
            for image, mask, turn in zip(images, masks, turns, strict=True)
        ]
        # NHWC memory seen as NCHW: channels_last already
        pairs = torch.from_numpy(np.stack(painted)).permute(0, 3, 1, 2)
        present = present_classes(masks, len(self._queryable)) & self._queryable
        return pairs, torch.from_numpy(present.astype(np.float32)), self._prompts.draw(present, generator)

    def _counts(self, data: TrainingSet, pairs: FittedPairs) -> np.ndarray:
        """The pixels of each class in the masks, ``(N, K)``."""
        counts = pairs.counts(len(data.classes))
        data.check_learnable(counts, pairs.size_px)
        if not self._queryable.any():
            raise DatasetInvalid(
                f"no class of {data.source} can be requested: {', '.join(c.name for c in data.classes)} are "
                'read as unlabelled background; give one "queryable": true in dataset.json'
            )
        return counts

    def _sampled(self, pairs: FittedPairs) -> np.ndarray:
        """The class sets of the first tiles, ``(N, K)`` bool."""
        assert isinstance(self._rows, TilePlan)
        pairs = pairs.limited(pairs.cache_bytes)  # images that it reads shall not stay in memory beside the stream's
        draws = [self._rows[position] for position in range(min(SAMPLED_TILES, 8 * self._rows.tiles))]
        return np.concatenate([present_classes(pairs.pair(draw)[1][None], len(self._queryable)) for draw in draws])

    def _draws(self, iteration: int) -> list[PairDraw]:
        size = self._settings.batch_size // self._accelerator.num_processes
        first = (iteration * self._accelerator.num_processes + self._accelerator.process_index) * size
        return as_draws([self._rows[first + offset] for offset in range(size)], self._places)
