"""A dataset opened for training or evaluation: classes, splits, texts and sizes. No pixels are in memory."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from model_store.card import IGNORE_INDEX, check_words
from service.cli.sources import plain_name
from service.datasets.reading.folder_layouts import IMAGE_FOLDERS
from service.datasets.reading.images import FORMAT as IMAGES
from service.datasets.reading.levels import Levels
from service.datasets.splits import canonical_split
from service.datasets.stored.dataset import StoredDataset
from service.kit.tenants import DEFAULT_TENANT
from service.kit.validation import closest_match
from service.settings import Settings
from workers.data.fit import Fit
from workers.data.instance_keys import Instances
from workers.data.item_index import ItemFiles, ItemIndex, Texts
from workers.data.listings import DatasetInvalid, listed_stems
from workers.data.pairs import DEFAULT_CACHE_BYTES, FittedPairs, whole_pairs
from workers.data.preparing import PreparedDataset, prepare
from workers.data.scales import scale_about
from workers.data.tiles import check_tiles
from workers.data.training_classes import TrainingClass, training_classes


@dataclass(frozen=True)
class TrainingSet:
    """A dataset in any format, from a folder, an archive or the store. Items are named by stems, or by their paths."""

    source: str
    """As it was given, for messages."""
    name: str
    classes: tuple[TrainingClass, ...]
    has_up: bool
    licence: str
    metres_per_px: float | None
    prepared: PreparedDataset = field(repr=False, compare=False)
    dataset: StoredDataset = field(repr=False, compare=False)
    listing: Path | None = None
    fit: Fit = field(default_factory=Fit)
    window: Levels | None = None
    """The levels that became black and white, if they were given."""
    notices: list[str] = field(default_factory=list, repr=False, compare=False)
    """Sentences on the data, to be read before training."""

    @classmethod
    def open(
        cls,
        source: Path | str,
        listing: Path | None = None,
        *,
        images_only: bool = False,
        window: Levels | None = None,
        fit: Fit | None = None,
        settings: Settings | None = None,
        tenant: str = DEFAULT_TENANT,
    ) -> TrainingSet:
        """Opens a folder, an archive, or ``name@version`` of the store; what is faulty is left out, and noticed.

        ``listing`` is a file of stems that replaces the train split; ``images_only`` takes images without masks too.
        ``tenant`` is whose ``name@version`` it is. Raises :class:`DatasetInvalid` naming what is missing or wrong.
        """
        prepared = prepare(source, images_only=images_only, window=window, settings=settings, tenant=tenant)
        dataset = prepared.open_dataset()
        classes = () if images_only else training_classes(dataset.classes, str(source))
        about = dataset.about
        opened = cls(
            source=str(source),
            name=about.title or about.name,
            classes=classes,
            has_up=about.has_up is not False,
            licence="" if about.licence == "not stated" else about.licence,
            metres_per_px=about.metres_per_px,
            prepared=prepared,
            dataset=dataset,
            listing=listing,
            fit=fit or Fit(),
            window=window,
            notices=list(prepared.notices(str(source))),
        )
        if listing is not None:
            opened.rows(listed_stems(listing), of=listing)
        return opened

    @property
    def name_and_window(self) -> str:
        """What a run has to be resumed on: the name, with the window that was given."""
        window = None if self.window is None else self.window.window
        return self.name if window is None else f"{self.name} through --window={window[0]:g},{window[1]:g}"

    @property
    def folder(self) -> Path:
        """The source as a path."""
        return Path(self.source)

    @property
    def plain_name(self) -> str:
        """The name of the folder or archive, or that of the stored dataset."""
        path = Path(self.source)
        return plain_name(path.resolve()) if path.exists() else self.dataset.about.name

    @cached_property
    def index(self) -> ItemIndex:
        """All items."""
        return ItemIndex.of(self.dataset)

    @cached_property
    def files(self) -> ItemFiles:
        """Their images and masks."""
        background = self.dataset.classes.background
        return ItemFiles(self.prepared.open_dataset, self.index, None if background is None else background.index)

    def with_fit(self, fit: Fit) -> TrainingSet:
        """The same set, fitted otherwise."""
        return replace(self, fit=fit)

    def with_aliases(self, aliases: dict[str, tuple[str, ...]]) -> TrainingSet:
        """The same set with other words for its classes. Raises :class:`DatasetInvalid` for a name that is no class."""
        unknown = sorted(set(aliases) - {entry.name for entry in self.classes})
        if unknown:
            raise DatasetInvalid(
                f"{', '.join(unknown)}: no such class; {self.name} has {', '.join(c.name for c in self.classes)}"
            )
        classes = tuple(replace(entry, aliases=aliases.get(entry.name, entry.aliases)) for entry in self.classes)
        try:
            check_words(classes)
        except ValueError as error:
            raise DatasetInvalid(f"{error} in {self.name}; give each class words of its own") from None
        return replace(self, classes=classes)

    @property
    def all_stems(self) -> tuple[str, ...]:
        """All items, in the order in which they were read."""
        return self._names

    def stems(self, split: str = "train") -> tuple[str, ...]:
        """The items of a split, in the order of its list if the dataset has one.

        Items without a split are trained on. Raises :class:`DatasetInvalid` for a split that is not there, or empty.
        """
        names = self._split_names.get(split, ())
        if not names:
            there = ", ".join(self._split_names) or "none"
            raise DatasetInvalid(
                f"{self.source} has no {split} images, so there is no {split} split; its splits are: {there}. List the "
                f"images in {split}.txt, or name a folder of them {split}"
            )
        return names

    def has_split(self, split: str) -> bool:
        """Whether any item is in a split."""
        return bool(self._split_names.get(split))

    @property
    def held_out_split(self) -> str:
        """The test split, or the train split if there is no other."""
        return "test" if self.has_split("test") else "train"

    @cached_property
    def _split_names(self) -> dict[str, tuple[str, ...]]:
        """The names of each split's items. Those that lists name and the reader left out are in its report."""
        found: dict[str, list[str]] = {}
        for row, split in enumerate(self.index.splits):
            found.setdefault(canonical_split(split) or "train", []).append(self._names[row])
        for split, listed in self.prepared.listings.items():
            found[split] = [self._names[row] for row in self._found(listed) if row is not None]
        if self.listing is not None:
            found["train"] = [self._names[row] for row in self.rows(listed_stems(self.listing), of=self.listing)]
        return {split: tuple(names) for split, names in found.items() if names}

    @cached_property
    def _names(self) -> tuple[str, ...]:
        """Of folders the stems, as lists and captions have them; the paths of items that share a name."""
        names = self.index.names
        if self.dataset.about.read_as in ("folders", IMAGES):
            # an export's manifest gives its items other names
            names = tuple(map(_stem, self.index.paths))
        if len(set(names)) == len(names):
            return names
        shared = {name for name, count in Counter(names).items() if count > 1}
        return tuple(path if name in shared else name for name, path in zip(names, self.index.paths, strict=True))

    def _found(self, names: Iterable[str]) -> Iterator[int | None]:
        """The positions of items by their names, with or without suffix, or by their paths; None for what is none.

        The tables are made anew each time: those of many items take more memory than all else that is known of them.
        """
        places = {name: row for row, name in enumerate(self._names)}
        paths: dict[str, int] | None = None
        for name in names:
            row = places.get(name)
            if row is None and (row := places.get(os.path.splitext(name)[0])) is not None:
                row = row if self.index.paths[row].endswith(name) else None
            if row is None:
                paths = paths or {path: place for place, path in enumerate(self.index.paths)}
                row = paths.get(name)
            yield row

    def rows(self, stems: Iterable[str], *, of: Path | None = None) -> np.ndarray:
        """The positions of items. Raises :class:`DatasetInvalid` for an unknown name, of the list ``of``."""
        wanted = tuple(stems)
        found = np.zeros(len(wanted), dtype=np.int64)
        for number, (stem, row) in enumerate(zip(wanted, self._found(wanted), strict=True)):
            if row is None:
                near = closest_match(stem, list(self._names))
                meant = f"did you mean {near!r}? " if near else ""
                raise DatasetInvalid(
                    f"{self.source} has no image named {stem!r}{f', which {of} lists' if of else ''}; {meant}"
                    "'twinset datasets check' names the files that cannot be read"
                )
            found[number] = row
        return found

    def texts(self, stems: Sequence[str]) -> tuple[Texts, ...]:
        """The texts of each item: ``text`` with any further members of its line; none for an image without."""
        return tuple(self.index.texts[row] for row in self.rows(stems))

    def check_held_out(self) -> None:
        """Raises :class:`DatasetInvalid` if an image is in both splits.

        Figures on images that were trained on say nothing of new ones.
        """
        shared = sorted(set(self.stems("train")) & set(self.stems("test")))
        if shared:
            raise DatasetInvalid(
                f"{shared[0]!r}{f' and {len(shared) - 1} more' if len(shared) > 1 else ''} of {self.source} stand in "
                "train.txt and in test.txt; an image that was trained on measures nothing, so take it out of one of "
                "them"
            )

    def pairs(
        self,
        size_px: int,
        stems: Sequence[str],
        *,
        fit: Fit | None = None,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        instances: Instances = "none",
    ) -> FittedPairs:
        """The pairs of items at a size, to be read one by one. Raises :class:`DatasetInvalid` for too large tiles."""
        chosen, rows = fit or self.fit, self.rows(stems)
        if chosen.tile_px is not None:
            check_tiles(chosen.tile_px, self.index.sizes[rows], [self._names[row] for row in rows])
        return FittedPairs(
            self.files,
            rows,
            chosen,
            size_px,
            cache_bytes=cache_bytes,
            scratch=self.prepared.scratch,
            instances=instances,
        )

    def arrays(self, split: str, size_px: int, stems: Sequence[str] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """All pairs of a split in memory: images ``(N, s, s, 3)`` uint8, masks ``(N, s, s)`` uint8, 255 = ignore.

        Of tiles, each image's is the one in its middle.
        """
        wanted = self.stems(split) if stems is None else tuple(stems)
        pairs = self.pairs(size_px, wanted, cache_bytes=0)
        return whole_pairs(pairs, range(len(pairs)))

    def content_sha256(self, stems: Sequence[str], *, masks: bool = True) -> str:
        """One digest of the bytes of items, in their order, so that changed or relabelled images give another model."""
        digests = self.index.digests[self.rows(stems)]
        return hashlib.sha256((digests if masks else digests[:, :1]).tobytes()).hexdigest()

    def check_learnable(self, counts: np.ndarray, size_px: int) -> None:
        """Raises :class:`DatasetInvalid` if masks with these class counts ``(N, K)`` show no queryable class."""
        wanted = [entry for entry in self.classes if entry.queryable]
        if wanted and not counts[:, [entry.index for entry in wanted]].any():
            held = ", ".join(f"{label}" for label in np.flatnonzero(counts.any(axis=0)).tolist()) or f"{IGNORE_INDEX}"
            classes = ", ".join(f"{entry.index} ({entry.name})" for entry in wanted)
            raise DatasetInvalid(
                f"none of the {len(counts)} masks of {self.source} has a pixel of class {classes} at {size_px} px, "
                f"only {held}; write the index of a class where the masks show it: {IGNORE_INDEX} means ignore"
            )

    def trained_on(self, shown: np.ndarray) -> TrainingSet:
        """The same set, in which a class that no training mask shows cannot be requested: nothing of it is learnt.

        ``shown`` is ``(K,)`` bool; the classes are named in :attr:`notices`.
        """
        absent = [entry for entry in self.classes if entry.queryable and not shown[entry.index]]
        if not absent:
            return self
        names = ", ".join(entry.name for entry in absent)
        if len(absent) == sum(entry.queryable for entry in self.classes):
            raise DatasetInvalid(f"no training mask of {self.source} shows {names}, so there is nothing to learn")
        self.notices.append(
            f"no training mask shows {names}, so the model does not learn it and it cannot be requested; put images of "
            "it into train.txt"
        )
        classes = tuple(replace(entry, queryable=False) if entry in absent else entry for entry in self.classes)
        return replace(self, classes=classes)

    def scale_about(self, size_px: int, stems: Sequence[str]) -> dict[str, Any]:
        """For the card: the fit, the native sizes of the training images, and the scale in pixels and metres."""
        window = None if self.window is None else self.window.window
        return scale_about(self.fit, size_px, self.index.sizes[self.rows(stems)], self.metres_per_px, window)


def _stem(path: str) -> str:
    """``a/b`` of ``images/a/b.png``."""
    first, _, rest = path.partition("/")
    return os.path.splitext(rest if rest and first in IMAGE_FOLDERS else path)[0]
