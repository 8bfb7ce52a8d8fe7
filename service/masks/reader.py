"""Reads the masks and instance maps of a request at the size of their twins, for validation. Nothing is written."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from model_store.card import ModelCard
from service.kit.prefetch import prefetch
from service.kit.validation import Faults
from service.masks.given import GivenFile, GivenPair, parse_masks
from service.masks.mask_fit import MaskFit
from service.masks.png_file import MaskRefused, PngFile, check_png
from service.masks.types import GivenInstances, GivenMask, MaskEncoding
from service.masks.uploads import Uploads
from service.settings import Settings

_MAX_CONCURRENCY = 2
"""Masks that one process decodes at the same time: the largest takes hundreds of megabytes meanwhile."""
_MAX_REFUSED = 20


@dataclass(frozen=True)
class ReadFile:
    """A valid file: ``png`` is what a job keeps of it, ``file`` its bytes if they are not stored yet."""

    upload: str
    png: bytes
    file: bytes | None

    @cached_property
    def sha256(self) -> str:
        """The hash of ``png``."""
        return hashlib.sha256(self.png).hexdigest()


@dataclass(frozen=True)
class ReadMask:
    """A valid mask with its instance map, if it has one. ``width`` and ``height``: None where the job has a size."""

    mask: ReadFile
    instances: ReadFile | None = None
    width: int | None = None
    height: int | None = None

    @property
    def given(self) -> GivenMask:
        """The mask in the spec."""
        return GivenMask(upload=self.mask.upload, sha256=self.mask.sha256, width=self.width, height=self.height)

    @property
    def given_instances(self) -> GivenInstances | None:
        """The instance map in the spec."""
        found = self.instances
        return None if found is None else GivenInstances(upload=found.upload, sha256=found.sha256)


class MaskReader:
    """Reads masks in requests and among a tenant's uploads. Safe to use from many threads."""

    def __init__(self, settings: Settings, uploads: Uploads) -> None:
        self._settings = settings
        self._uploads = uploads
        self._slots = threading.BoundedSemaphore(_MAX_CONCURRENCY)

    def read(
        self,
        value: Any,
        instances: Any,
        card: ModelCard,
        encoding: MaskEncoding,
        fit: MaskFit,
        faults: Faults,
        *,
        tenant: str,
    ) -> tuple[ReadMask, ...]:
        """The masks of the members ``mask`` and ``instances``, in order, at the size of their twins.

        Refused ones are recorded in ``faults`` instead. A file that is given several times is read once. After 20
        refused masks the rest is not read. May raise the store's errors.
        """
        pairs = parse_masks(value, instances, max_masks=self._settings.max_masks, faults=faults)
        files = [file for pair in pairs for file in (pair.mask, pair.instances) if file is not None]
        # If the request also has the file itself, it need not have been uploaded.
        sent = {file.upload: file.data for file in files if file.data is not None}
        distinct: dict[tuple[str, str | None], GivenPair] = {}
        for pair in pairs:
            distinct.setdefault(_uploads_of(pair), pair)
        masks: dict[tuple[str, str | None], ReadMask] = {}
        refused = 0

        def data_of(file: GivenFile | None) -> bytes | None:
            if file is None:
                return None
            return sent[file.upload] if file.upload in sent else self._uploads.get(file.upload, tenant=tenant)

        with closing(prefetch(lambda pair: (data_of(pair.mask), data_of(pair.instances)), distinct.values())) as found:
            for pair, data in found:
                try:
                    masks[_uploads_of(pair)] = self._read_one(pair, data, sent, card, encoding, fit)
                except _Refused as error:
                    refused += 1
                    faults.add_plain(error.file.pointer, f"{error.file.name} {error.reason}")
                    if refused == _MAX_REFUSED and len(distinct) > len(masks) + refused:
                        last = pair.mask.name
                        faults.add_plain("/mask", f"{refused} masks are refused; those after {last} were not read")
                        break
        return tuple(masks[_uploads_of(pair)] for pair in pairs if _uploads_of(pair) in masks)

    def _read_one(
        self,
        pair: GivenPair,
        data: tuple[bytes | None, bytes | None],
        sent: Mapping[str, bytes],
        card: ModelCard,
        encoding: MaskEncoding,
        fit: MaskFit,
    ) -> ReadMask:
        # numpy and Pillow are loaded by the first request with a mask, not at the start of the API
        from service.kit.png import encode_grey_16, encode_mask
        from service.masks.instances import check_instances, read_instances
        from service.masks.labels import read_labels

        with self._slots:
            with _refusing(pair.mask):
                mask_file = self._checked(pair.mask, data[0], fit.check)
                labels = read_labels(mask_file, card, encoding)
            numbers = None
            if pair.instances is not None:
                with _refusing(pair.instances):
                    sides = _same_sides(mask_file, pair.mask.name)
                    numbers = read_instances(self._checked(pair.instances, data[1], sides, deep=True))
                    check_instances(numbers, labels, [entry.name for entry in card.classes])
            labels, numbers = fit.apply(labels, numbers)
            # No provenance: equal classes give equal bytes, whichever file and request they come from.
            png = encode_mask(labels, [entry.colour for entry in card.classes], {})
            height, width = labels.shape if fit.width is None else (None, None)
            mask = ReadFile(pair.mask.upload, png, sent.get(pair.mask.upload))
            if pair.instances is None or numbers is None:
                return ReadMask(mask, None, width, height)
            upload = pair.instances.upload
            return ReadMask(mask, ReadFile(upload, encode_grey_16(numbers), sent.get(upload)), width, height)

    def _checked(
        self, file: GivenFile, data: bytes | None, sides: Callable[[int, int], None], *, deep: bool = False
    ) -> PngFile:
        if data is None:
            raise MaskRefused(f"has the upload '{file.upload}', which does not exist; send its file by POST /uploads")
        return check_png(data, max_side_px=self._settings.max_mask_px, check_sides=sides, deep=deep)


class _Refused(Exception):
    """A file of a pair that is refused, and why."""

    def __init__(self, file: GivenFile, reason: str) -> None:
        super().__init__(reason)
        self.file, self.reason = file, reason


@contextmanager
def _refusing(file: GivenFile) -> Iterator[None]:
    try:
        yield
    except MaskRefused as error:
        raise _Refused(file, str(error)) from None


def _uploads_of(pair: GivenPair) -> tuple[str, str | None]:
    return pair.mask.upload, None if pair.instances is None else pair.instances.upload


def _same_sides(mask: PngFile, name: str) -> Callable[[int, int], None]:
    def check(width: int, height: int) -> None:
        if (width, height) != (mask.width, mask.height):
            raise MaskRefused(
                f"is {width} x {height} px, and {name} is {mask.width} x {mask.height}; give the numbers of its own "
                "pixels"
            )

    return check
