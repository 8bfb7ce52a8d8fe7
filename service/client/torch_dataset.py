"""A downloaded set as a dataset of PyTorch.

The one module here that needs torch, which the base install does not bring.
"""

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
    _how = "a dataset for PyTorch needs torch, which is not installed: pip install torch, or 'twinset[worker]'"
    raise TorchMissing(_how, extra="worker") from None

Transform = Callable[[torch.Tensor, torch.Tensor], Any]
"""From image and mask to what ``__getitem__`` gives in their place."""


class TwinDataset(Dataset[Any]):
    """Pairs as ``(image, mask)``: float32 ``(3, H, W)`` in 0..1, and int64 ``(H, W)`` of class indices, in which 255 is
    none.

    255 is what losses take as ``ignore_index=255``. ``classes`` has the classes' names by index. It can be pickled, and
    holds no open files, so that a DataLoader may have any number of workers, forked or spawned.
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
        """``source`` is a folder that was downloaded, or a Job or Export of :class:`Twinset`, which is fetched into
        ``folder`` first.

        ``split`` takes only the items of that split; ``transform`` is called with image and mask, and ``workers`` fetch
        at once. Raises InvalidRequest for a split that there is not, InvalidDataset for a folder that holds no set or
        not all of it, and what downloading raises. Warns of items that have no mask.
        """
        self.root = _folder_of(source, folder, workers, progress)
        layout = read_layout(self.root)
        if layout.left_out:
            warnings.warn(
                f"{len(layout.left_out)} items of {self.root} are left out: {layout.left_out[0]}, ...", stacklevel=2
            )
        self.classes = layout.classes
        self.splits = tuple(sorted({pair.split for pair in layout.pairs if pair.split is not None}))
        if split is not None and split not in self.splits:
            there = (
                f"it has {', '.join(self.splits)}"
                if self.splits
                else "it has none; export with splits={'train': 0.9, 'val': 0.1}, say"
            )
            raise InvalidRequest(f"there is no split {split!r} in {self.root}; {there}")
        self.split = split
        self.transform = transform
        self._pairs = [pair for pair in layout.pairs if split is None or pair.split == split]
        if not self._pairs:
            raise InvalidRequest(
                f"{self.root} has no pair of image and mask; pairs=True has a request refused that would make no masks"
            )

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Any:
        """The pair at ``index``. Raises InvalidDataset naming one that cannot be read, or whose mask holds what is no
        class."""
        pair = self._pairs[index]
        pixels, labels = pair.read()
        check_pair(pair.name, pixels, labels, len(self.classes))
        image = torch.from_numpy(pixels).permute(2, 0, 1).to(torch.float32).div_(255).contiguous()
        mask = torch.from_numpy(labels).to(torch.int64)
        return (image, mask) if self.transform is None else self.transform(image, mask)

    def name(self, index: int) -> str:
        """What the set calls the pair at ``index``."""
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
        raise InvalidRequest(f"name a folder to fetch {source!r} into: TwinDataset(source, folder)")
    if not hasattr(source, "download"):
        raise InvalidRequest(f"{source!r} has no files of its own; export it, and take the export")
    fetched = source.download(folder, workers=workers, progress=progress)
    if not isinstance(fetched, Download):
        fetched.close()
        raise InvalidRequest(f"{source!r} is of AsyncTwinset; write 'await source.torch_dataset(folder)'")
    return fetched.folder
