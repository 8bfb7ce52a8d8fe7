"""The inputs of each sample of a job: its condition, with its mask fetched from the store and checked."""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np

from model_store.interface import ConditionRequest, MaskInput
from service.errors import ObjectDamaged
from service.jobs.spec import JobSpec
from service.kit.image_files import open_image_file
from service.masks.types import GivenMask
from service.store.base import ObjectStore
from service.store.checked import read_checked

_MAX_MASKS = 64


class InputDamaged(RuntimeError):
    """A given mask differs from the one the job was accepted with; another read may give the right one."""


class JobInputs:
    """Reads the given masks of jobs and caches the last few. May be used from many threads."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._masks: OrderedDict[str, MaskInput] = OrderedDict()
        self._lock = threading.Lock()

    def request(self, spec: JobSpec, index: int) -> ConditionRequest:
        """The condition of sample ``index``.

        Raises a store's error if its mask cannot be read, :class:`InputDamaged` if it is not the accepted one.
        """
        number = spec.mask_number(index)
        mask = None if spec.mask is None or number is None else self._mask(spec, number, spec.mask[number])
        return ConditionRequest(
            prompt=spec.prompt, classes=spec.classes, mask=mask, guidance_target=spec.guidance_target
        )

    def _mask(self, spec: JobSpec, number: int, given: GivenMask) -> MaskInput:
        numbered = spec.instances_of(number)
        fingerprint = given.sha256 if numbered is None else f"{given.sha256}+{numbered.sha256}"
        with self._lock:
            if fingerprint in self._masks:
                self._masks.move_to_end(fingerprint)
                return self._masks[fingerprint]
        instances = None
        if numbered is not None:
            instances = self._pixels(spec.instances_key(number), numbered.sha256).astype(np.int32)
        mask = MaskInput(fingerprint, self._pixels(spec.input_key(number), given.sha256), instances)
        with self._lock:
            self._masks[fingerprint] = mask
            while len(self._masks) > _MAX_MASKS:
                self._masks.popitem(last=False)
        return mask

    def _pixels(self, key: str, sha256: str) -> np.ndarray:
        try:
            data = read_checked(self._store, key, sha256)
        except ObjectDamaged:
            raise InputDamaged(
                f"{key} in the object store is damaged; the job was accepted with sha256 {sha256}"
            ) from None
        with open_image_file(data) as file:
            return np.asarray(file)
