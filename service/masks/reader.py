"""Reads the masks of a request as class indices at the job's size, for validation. Nothing is written here."""

from __future__ import annotations

import hashlib
import threading
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from model_store.card import ModelCard
from service.kit.prefetch import prefetch
from service.kit.validation import Faults
from service.masks.fitting import MaskFit
from service.masks.given import GivenFile, parse_masks
from service.masks.png_file import MaskRefused, check_png
from service.masks.types import GivenMask, MaskEncoding
from service.masks.uploads import Uploads
from service.settings import Settings

_MAX_CONCURRENCY = 2
"""Masks that one process decodes at the same time: the largest takes hundreds of megabytes meanwhile."""
_MAX_REFUSED = 20


@dataclass(frozen=True)
class ReadMask:
    """A valid mask: its reference in the spec, the PNG of its class indices, and its file if that is not stored yet."""

    given: GivenMask
    png: bytes
    file: bytes | None


class MaskReader:
    """Reads masks in requests and among a tenant's uploads. Safe to use from many threads."""

    def __init__(self, settings: Settings, uploads: Uploads) -> None:
        self._settings = settings
        self._uploads = uploads
        self._slots = threading.BoundedSemaphore(_MAX_CONCURRENCY)

    def read(
        self, value: Any, card: ModelCard, encoding: MaskEncoding, fit: MaskFit, faults: Faults, *, tenant: str
    ) -> tuple[ReadMask, ...]:
        """The masks of the member ``value``, in order, at the size of their twins.

        Refused ones are recorded in ``faults`` instead.
        A file that is given several times is read once. After 20 refused masks the rest is not read. May raise the
        store's errors.
        """
        files = parse_masks(value, max_masks=self._settings.max_masks, faults=faults)
        distinct: dict[str, GivenFile] = {}
        for file in files:
            # If the request also has the file itself, it need not have been uploaded.
            if file.upload not in distinct or distinct[file.upload].data is None:
                distinct[file.upload] = file
        masks: dict[str, ReadMask] = {}
        refused = 0
        with closing(prefetch(lambda file: self._data(file, tenant), distinct.values())) as found:
            for file, data in found:
                try:
                    if data is None:
                        raise MaskRefused(
                            f"has the upload '{file.upload}', which does not exist; send its file by POST /uploads"
                        )
                    masks[file.upload] = self._read_one(file, data, card, encoding, fit)
                except MaskRefused as error:
                    refused += 1
                    faults.add_plain(file.pointer, f"{file.name} {error}")
                    if refused == _MAX_REFUSED and len(distinct) > len(masks) + refused:
                        faults.add_plain("/mask", f"{refused} masks are refused; those after {file.name} were not read")
                        break
        return tuple(masks[file.upload] for file in files if file.upload in masks)

    def _data(self, file: GivenFile, tenant: str) -> bytes | None:
        return file.data if file.data is not None else self._uploads.get(file.upload, tenant=tenant)

    def _read_one(
        self, file: GivenFile, data: bytes, card: ModelCard, encoding: MaskEncoding, fit: MaskFit
    ) -> ReadMask:
        # numpy and Pillow are loaded by the first request with a mask, not at the start of the API
        from service.kit.png import encode_mask
        from service.masks.labels import read_labels

        with self._slots:
            png_file = check_png(data, max_side_px=self._settings.max_mask_px, check_sides=fit.check)
            labels = fit.apply(read_labels(png_file, card, encoding))
            # No provenance: equal classes give equal bytes, whichever file and request they come from.
            png = encode_mask(labels, [entry.colour for entry in card.classes], {})
        sides = {} if fit.width is not None else {"width": labels.shape[1], "height": labels.shape[0]}
        given = GivenMask(upload=file.upload, sha256=hashlib.sha256(png).hexdigest(), **sides)
        return ReadMask(given, png, file.data)
