"""A downloaded set as a PyTorch dataset. The only module of the client that needs torch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from service.client.downloading import Download
from service.client.errors import TorchMissing
from service.client.layouts import check_pair, read_layout
from service.client.runs import Run
from service.errors import InvalidRequest

try:
    import torch
    from torch.utils.data import Dataset
except ImportError:
    _remedy = "a dataset for PyTorch needs torch, which is not installed: pip install torch, or 'twinset[worker]'"
    raise TorchMissing(_remedy, extra="worker") from None

Transform = Callable[[torch.Tensor, torch.Tensor], Any]
"""Function of image and mask; ``__getitem__`` returns what it returns."""


class TwinDataset(Dataset[Any]):
    """PyTorch dataset of pairs ``(image, mask)``.

    ``image`` is float32 ``(3, H, W)`` in 0..1, ``mask`` int64 ``(H, W)`` of class indices, where 255 means ignore (the
    ``ignore_index=255`` of losses). ``classes`` has the class names by index, ``splits`` the names of the splits. It
    can be pickled and holds no open files, so a DataLoader may have any number of workers, forked or spawned. Example::

        dataset = TwinDataset("twins")
        image, mask = dataset[0]
    """

    classes: tuple[str, ...]

    def __init__(
        self,
        source: str | Path | Run[Any],
        folder: str | Path | None = None,
        *,
        split: str | None = None,
        transform: Transform | None = None,
        workers: int = 8,
        progress: bool = True,
    ) -> None:
        """Opens a downloaded folder, or downloads a :class:`Job` or :class:`Export` to ``folder`` first.

        ``split``: only the items of this split. ``transform``: called with image and mask. ``workers``: files that are
        fetched concurrently. Warns of items without a mask, which are left out. Raises InvalidRequest for an unknown
        split, InvalidDataset for a folder without a set or with an incomplete one, and what downloading raises.
        """
        self.root = _folder_of(source, folder, workers, progress)
        layout = read_layout(self.root)
        if layout.skipped:
            warnings.warn(
                f"{len(layout.skipped)} items of {self.root} are left out: {layout.skipped[0]}, ...", stacklevel=2
            )
        self.classes = layout.classes
        self.splits = tuple(sorted({pair.split for pair in layout.pairs if pair.split is not None}))
        if split is not None and split not in self.splits:
            available = (
                f"it has {', '.join(self.splits)}"
                if self.splits
                else "it has none; export with splits, such as {'train': 0.9, 'val': 0.1}"
            )
            raise InvalidRequest(f"{self.root} has no split {split!r}; {available}")
        self.split = split
        self.transform = transform
        self._pairs = [pair for pair in layout.pairs if split is None or pair.split == split]
        if not self._pairs:
            raise InvalidRequest(
                f"{self.root} has no pair of image and mask; generate(pairs=True) refuses to make images without masks"
            )

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Any:
        """The pair at ``index``. Raises InvalidDataset if it cannot be read, or if its mask has an unknown class."""
        pair = self._pairs[index]
        pixels, labels = pair.read()
        check_pair(pair.name, pixels, labels, len(self.classes))
        image = torch.from_numpy(pixels).permute(2, 0, 1).to(torch.float32).div_(255).contiguous()
        mask = torch.from_numpy(labels).to(torch.int64)
        return (image, mask) if self.transform is None else self.transform(image, mask)

    def name(self, index: int) -> str:
        """The name of the pair at ``index`` in the set."""
        return self._pairs[index].name

    def __repr__(self) -> str:
        of = "" if self.split is None else f", split {self.split!r}"
        return f"<TwinDataset {self.root}: {len(self)} pairs of {len(self.classes)} classes{of}>"


def _folder_of(source: str | Path | Run[Any], folder: str | Path | None, workers: int, progress: bool) -> Path:
    if isinstance(source, (str, Path)):
        if folder is not None:
            raise InvalidRequest(f"source is the folder {source} already; leave out folder={str(folder)!r}")
        return Path(source).expanduser().absolute()
    if folder is None:
        raise InvalidRequest(f"name a folder to download {source!r} to: TwinDataset(source, folder)")
    if not hasattr(source, "download"):
        raise InvalidRequest(f"{source!r} has no files of its own; export it, and take the export")
    fetched = source.download(folder, workers=workers, progress=progress)
    if not isinstance(fetched, Download):
        fetched.close()
        raise InvalidRequest(f"{source!r} is of AsyncTwinset; write 'await source.torch_dataset(folder)'")
    return fetched.folder
