"""The single files of a training folder: its description, its lists of stems, its images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from service.datasets.items import as_rgb
from service.datasets.reading.image_files import open_image
from service.datasets.reading.orientation import orientation, upright
from service.datasets.reading.report import EntryFault
from service.kit.documents import parse_json

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


class DatasetInvalid(ValueError):
    """An invalid training folder; the message names the file and what is wrong with it."""


def read_about(path: Path) -> dict[str, Any]:
    """``dataset.json`` without its null members.

    Raises :class:`DatasetInvalid` unless it is a JSON object whose known members have the right types.
    """
    try:
        about = parse_json(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise DatasetInvalid(f"{path} cannot be read ({error})") from None
    if not isinstance(about, dict):
        raise DatasetInvalid(f"{path} is a JSON {type(about).__name__}; it should be an object, {{...}}")
    about = {member: value for member, value in about.items() if value is not None}
    for member, kind, wanted in (("name", str, "text"), ("licence", str, "text"), ("has_up", bool, "true or false")):
        if not isinstance(about.get(member, kind()), kind):
            raise DatasetInvalid(f"{path} has {member} {about[member]!r}; it should be {wanted}")
    return about


def listed_stems(path: Path) -> tuple[str, ...]:
    """The stems of a file, one a line. Raises :class:`DatasetInvalid` if there are none, or one is listed twice."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DatasetInvalid(f"{path} is not UTF-8 text ({error}); save it as that, with a stem a line") from None
    stems = tuple(line.strip() for line in lines if line.strip())
    if not stems:
        raise DatasetInvalid(f"{path} lists no images; write one stem a line")
    if len(set(stems)) < len(stems):
        twice = next(stem for stem, count in Counter(stems).items() if count > 1)
        raise DatasetInvalid(f"{path} lists {twice!r} more than once; list each image once")
    return stems


def without_test(folder: Path, stems: Iterable[str]) -> tuple[str, ...]:
    """``stems`` without those in ``folder/test.txt``, if it exists: without a ``train.txt``, the rest is trained on."""
    held_out = frozenset(listed_stems(folder / "test.txt") if (folder / "test.txt").is_file() else ())
    kept = tuple(stem for stem in stems if stem not in held_out)
    if held_out and not kept:
        raise DatasetInvalid(f"{folder} has no train.txt, and its test.txt lists every image; leave some to train on")
    return kept


class ImageFiles:
    """The image files of a folder by their stems: ``files[stem]``."""

    def __init__(self, folder: Path) -> None:
        """Raises :class:`DatasetInvalid` if the folder does not exist."""
        if not folder.is_dir():
            raise DatasetInvalid(f"{folder} does not exist; a training set has its images there")
        self._folder = folder
        self._paths: dict[str, list[Path]] = {}
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in IMAGE_SUFFIXES:
                self._paths.setdefault(path.stem, []).append(path)

    @property
    def stems(self) -> tuple[str, ...]:
        """All of them, in order."""
        return tuple(self._paths)

    def __getitem__(self, stem: str) -> Path:
        """Raises :class:`DatasetInvalid` if no file has the stem, or more than one."""
        paths = self._paths.get(stem, [])
        if not paths:
            bare = Path(stem).stem in self._paths and Path(stem).suffix.lower() in IMAGE_SUFFIXES
            remedy = "; a stem is the name without its suffix" if bare else ""
            raise DatasetInvalid(f"{self._folder} has no image named {stem!r} ({', '.join(IMAGE_SUFFIXES)}){remedy}")
        if len(paths) > 1:
            raise DatasetInvalid(
                f"{self._folder} has {' and '.join(path.name for path in paths)}; stems must be unique, so keep one "
                "of them"
            )
        return paths[0]


@dataclass(frozen=True)
class UprightImage:
    """An image in RGB as it is shown; ``stored_size`` and EXIF ``orientation`` (1: as stored) are the file's."""

    pixels: Image.Image
    stored_size: tuple[int, int]
    orientation: int

    @property
    def turned(self) -> bool:
        """Whether it is shown otherwise than it is stored."""
        return self.orientation != 1


def read_upright(path: Path) -> UprightImage:
    """An image file. Raises :class:`DatasetInvalid` for one that cannot be read."""
    try:
        image = open_image(path)
        return UprightImage(as_rgb(upright(image)), image.size, orientation(image))
    except EntryFault as fault:
        raise DatasetInvalid(f"{path} cannot be read: {fault.detail}") from None


def add_turned_notice(notices: list[str], folder: Path, turned: int) -> None:
    """Adds to the notices, once, how many images are turned by EXIF data."""
    if turned:
        are = "1 image has" if turned == 1 else f"{turned} images have"
        notice = f"{are} EXIF data that turn what is shown, in {folder}; they are read upright, as are their masks"
        if notice not in notices:
            notices.append(notice)
