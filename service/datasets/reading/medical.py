"""The source for DICOM images and NIfTI volumes, slice by slice: a window makes 8-bit images of their levels.

images/a.dcm with masks/a.png          an image of one frame and its mask of class indices
images/b.nii.gz with masks/b.nii.gz    a volume and its labels; every slice along the last axis is an item, ``b/0004``

The window is the given one, or the file's own: WindowCenter and WindowWidth of DICOM, cal_min and cal_max of NIfTI.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from service.datasets.classes import ClassList
from service.datasets.extras import optional
from service.datasets.items import decoding_fault
from service.datasets.reading.caption_lines import CaptionLines
from service.datasets.reading.class_lists import require_classes
from service.datasets.reading.entry import Annotation, Entry
from service.datasets.reading.faults import naming_faults
from service.datasets.reading.folder_layouts import IMAGE_FOLDERS, MASK_FOLDERS
from service.datasets.reading.image_files import open_image
from service.datasets.reading.levels import Levels, windowed_png
from service.datasets.reading.report import EntryFault, Findings
from service.datasets.reading.split_lists import SplitLists
from service.datasets.reading.tree import files, images, nfc, relative
from service.errors import InvalidDataset
from service.kit.image_files import MAX_PIXELS

_DICOM = (".dcm", ".dicom")
_NIFTI = (".nii", ".nii.gz")
_SUFFIXES = frozenset({*_DICOM, ".nii", ".gz"})
_NO_WINDOW = (
    "it has no window of its own; write one into it (DICOM's WindowCenter and WindowWidth, NIfTI's cal_min and "
    "cal_max), or where it is trained on give one: --window LOW,HIGH, such as --window=-160,240 of soft tissue in CT"
)
_OTHER_AXES = (
    "its axes lead to {}, and those of its labels to {}; they are read voxel by voxel, so check that neither is "
    "mirrored, or make both anew from one source"
)


def is_medical(root: Path) -> bool:
    """Whether the folder of images holds DICOM files or NIfTI volumes, and no images of other kinds."""
    folders = [root / name for name in IMAGE_FOLDERS if (root / name).is_dir()]
    return any(_stem(path) is not None for folder in folders for path in files(folder, _SUFFIXES)) and not any(
        next(images(folder), None) for folder in folders
    )


class MedicalSource:
    """Source of ``images/`` with DICOM or NIfTI files, and ``masks/`` with PNG files or NIfTI volumes of one stem."""

    format = "medical"

    def __init__(self, root: Path, classes: ClassList | None, levels: Levels) -> None:
        self.root, self._levels = root, levels
        self._images = _folder(root, IMAGE_FOLDERS)
        self._masks = _folder(root, MASK_FOLDERS)
        self.classes = require_classes(root, classes)

    @naming_faults
    def entries(self, findings: Findings) -> Iterator[Entry]:
        """The entries in the order of the images' paths, and of the slices."""
        splits, captions = SplitLists(self.root, [self._images]), CaptionLines.read(self.root)
        for path in files(self._images, _SUFFIXES):
            stem = _stem(path)
            if stem is None:
                continue
            key = nfc((path.parent.relative_to(self._images) / stem).as_posix())
            volume = path.name.lower().endswith(_NIFTI)
            mask = next(
                (
                    found
                    for suffix in (_NIFTI if volume else (".png",))
                    if (found := self._masks / f"{key}{suffix}").is_file()
                ),
                None,
            )
            split, name = splits.split_of(path, key), relative(self.root, path)
            if mask is None:
                wanted = "a NIfTI volume" if volume else "a PNG of class indices"
                findings.add("missing_partner", name, f"{relative(self.root, self._masks)} has no {key}, {wanted}")
                continue
            if not volume:
                yield Entry(
                    name=key,
                    image=_Dicom(path, self._levels),
                    annotate=partial(_png_labels, mask),
                    split=split,
                    mask_file=mask,
                    report_path=name,
                    **captions.of(key),
                )
                continue
            try:
                depth = _volume(path).shape[2]
            except EntryFault as fault:
                findings.add(fault.kind, name, fault.detail)
                continue
            for place in range(depth):
                yield Entry(
                    name=f"{key}/{place:04d}",
                    image=_Slice(path, place, self._levels),
                    annotate=partial(_slice_labels, mask, path, place),
                    split=split,
                    report_path=f"{name}/{place:04d}",
                    **captions.of(key),
                )
        splits.report(findings)


@dataclass(frozen=True)
class _Dicom:
    """A DICOM file as the bytes of a PNG."""

    path: Path
    levels: Levels

    def read_bytes(self) -> bytes:
        pydicom = optional("pydicom", extra="medical", purpose="Reading DICOM")
        processing = optional("pydicom.pixels", extra="medical", purpose="Reading DICOM")
        try:
            file = pydicom.dcmread(BytesIO(self.path.read_bytes()))
            if int(file.Rows) * int(file.Columns) > MAX_PIXELS:
                raise EntryFault("unreadable", f"it has {file.Rows} x {file.Columns} pixels; the limit is {MAX_PIXELS}")
            if int(file.get("NumberOfFrames", 1) or 1) > 1:
                raise EntryFault("unreadable", "it holds several frames; save each as a file, or all as NIfTI")
            pixels = file.pixel_array
            if pixels.ndim != 2:
                raise EntryFault("unreadable", f"its pixels are {file.PhotometricInterpretation}; save it as PNG")
            levels = np.asarray(processing.apply_modality_lut(pixels, file), dtype=np.float64)
            window = self.levels.window or _own_window(file)
        except (EntryFault, OSError, MemoryError):
            raise
        except Exception as error:
            # a damaged file makes pydicom raise whatever it stumbles over
            raise EntryFault("unreadable", f"it cannot be decoded as DICOM ({decoding_fault(error):.200})") from None
        if window is None:
            raise EntryFault("unreadable", _NO_WINDOW)
        if file.PhotometricInterpretation == "MONOCHROME1":
            levels, window = -levels, (-window[1], -window[0])
        return windowed_png(levels, window)


@dataclass(frozen=True)
class _Slice:
    """A slice of a NIfTI volume as the bytes of a PNG."""

    path: Path
    place: int
    levels: Levels

    def read_bytes(self) -> bytes:
        volume = _volume(self.path)
        header = volume.header
        low, high = float(header["cal_min"]), float(header["cal_max"])
        window = self.levels.window or ((low, high) if low < high else None)
        if window is None:
            raise EntryFault("unreadable", _NO_WINDOW)
        return windowed_png(_plane(volume, self.place), window)


def _own_window(file: Any) -> tuple[float, float] | None:
    """The window that a DICOM file states first."""
    centre, width = file.get("WindowCenter"), file.get("WindowWidth")
    if centre in (None, "") or width in (None, ""):
        return None
    first = [float(value if isinstance(value, int | float | str) else value[0]) for value in (centre, width)]
    return first[0] - first[1] / 2, first[0] + first[1] / 2


@lru_cache(maxsize=4)
def _volume(path: Path) -> Any:
    """A volume, of which only the header has been read. Raises EntryFault."""
    nibabel = optional("nibabel", extra="medical", purpose="Reading NIfTI")
    try:
        volume = nibabel.load(path)
        shape = volume.shape
    except Exception as error:
        raise EntryFault("unreadable", f"it cannot be decoded as NIfTI ({decoding_fault(error):.200})") from None
    if len(shape) != 3 or shape[0] * shape[1] > MAX_PIXELS:
        raise EntryFault("unreadable", f"it is {shape}; a volume is (x, y, slices), each slice of {MAX_PIXELS} at most")
    return volume


def _plane(volume: Any, place: int) -> np.ndarray:
    """A slice ``(y, x)`` as viewers show it: the first axis to the right."""
    try:
        return np.asarray(volume.dataobj[..., place]).T
    except Exception as error:
        raise EntryFault("unreadable", f"slice {place} cannot be read ({decoding_fault(error):.200})") from None


def _slice_labels(mask: Path, image: Path, place: int, width: int, height: int) -> Annotation:
    volume, of_image = _volume(mask), _volume(image)
    if volume.shape != of_image.shape:
        detail = f"it is {_sides(of_image)}, and its labels are {_sides(volume)}"
        raise EntryFault("size_differs", f"{detail}; make both anew from one source")
    labels = _plane(volume, place)
    if not np.array_equal(labels, labels.round().clip(0, 255)):
        raise EntryFault("unknown_labels", f"its labels hold values other than 0 to 255 in slice {place}")
    axes, of_labels = _axes(of_image), _axes(volume)
    assumed = () if None in (axes, of_labels) or axes == of_labels else (_OTHER_AXES.format(axes, of_labels),)
    return Annotation(np.ascontiguousarray(labels.astype(np.uint8)), assumed=assumed)


def _sides(volume: Any) -> str:
    return " x ".join(map(str, volume.shape))


def _axes(volume: Any) -> str | None:
    """Where the axes of a volume lead, such as ``RAS``; None if its header does not say."""
    nibabel = optional("nibabel", extra="medical", purpose="Reading NIfTI")
    header = volume.header
    if not (int(header["sform_code"]) or int(header["qform_code"])):
        return None
    return "".join(str(axis) for axis in nibabel.aff2axcodes(volume.affine))


def _png_labels(mask: Path, width: int, height: int) -> Annotation:
    image = open_image(mask)
    if image.mode not in ("L", "P"):
        raise EntryFault("unknown_labels", f"its mask has mode {image.mode}; save class indices as an 8-bit PNG")
    return Annotation(np.array(image))


def _folder(root: Path, names: tuple[str, ...]) -> Path:
    found = next((root / name for name in names if (root / name).is_dir()), None)
    if found is None:
        raise InvalidDataset(f"there is no folder {' or '.join(names[:3])}; DICOM and NIfTI lie in images/ and masks/")
    return found


def _stem(path: Path) -> str | None:
    """The name without the suffix of DICOM or NIfTI; None for another file."""
    lower = path.name.lower()
    suffix = next((each for each in (".nii.gz", ".nii", *_DICOM) if lower.endswith(each)), None)
    return None if suffix is None else path.name[: -len(suffix)]
