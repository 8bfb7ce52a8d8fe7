"""Images and their masks, paired by their paths below two folders: a file's name alone says nothing of its folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from service.datasets.reading.tree import images, nfc, stem_in

Keyed = tuple[str, Path]
"""A file with its key: its path below its folder, without its suffix and without the ending that its kind has."""


@dataclass
class Pairing:
    """The pairs with the images' keys, in the order of the images, and the files that have no partner.

    ``ambiguous`` are images that could have several masks, or share one, each with a sentence about it.
    """

    pairs: list[tuple[str, Path, Path]] = field(default_factory=list)
    without_mask: list[Keyed] = field(default_factory=list)
    without_image: list[Keyed] = field(default_factory=list)
    ambiguous: list[tuple[Path, str]] = field(default_factory=list)


@dataclass
class MapPairing:
    """The instance map of each image that has one, or a sentence on why it cannot be told, and the maps of no image."""

    of: dict[Path, Path | str]
    without_image: list[Keyed]


def pair_files(
    images: Iterable[Keyed], masks: Iterable[Keyed], endings: Sequence[str] = ("",), what: str = "mask"
) -> Pairing:
    """Pairs images and masks of one key; a mask's key may have one of ``endings`` more, the first that fits.

    ``what`` is what messages call a mask: instance maps are paired in the same way.

    A mask that is named after the image's whole name (``p0.jpg.png``) is that image's. Several images and masks of one
    key are paired by their suffixes if each image has a mask of its own; otherwise they are ambiguous.
    """
    masks_of = _by_key(masks)
    images_of = _by_key(images)
    found = Pairing()
    for key, group in images_of.items():
        shared = []
        for image in group:
            named = masks_of.get(key + nfc(image.suffix), [])
            if len(named) == 1:
                masks_of.pop(key + nfc(image.suffix))
                found.pairs.append((key, image, named[0]))
            else:
                shared.append(image)
        ending = next((ending for ending in endings if key + ending in masks_of), None)
        if ending is None:
            found.without_mask += [(key, image) for image in shared]
        elif shared:
            _share(key, shared, masks_of.pop(key + ending), found, what)
    found.without_image = [(key, mask) for key, group in masks_of.items() for mask in group]
    return found


def pair_maps(images: Iterable[Keyed], maps: Iterable[Keyed], what: str = "map of instances") -> MapPairing:
    """Pairs images and instance maps of one key, as :func:`pair_files` pairs images and masks."""
    paired = pair_files(images, maps, what=what)
    of: dict[Path, Path | str] = {image: found for _, image, found in paired.pairs}
    return MapPairing(of | dict(paired.ambiguous), paired.without_image)


def keyed(folder: Path, ending: str = "") -> list[Keyed]:
    """The image files below a folder whose stem has the ending, with their keys."""
    return [(stem_in(folder, path).removesuffix(ending), path) for path in images(folder) if path.stem.endswith(ending)]


def _share(key: str, images: list[Path], masks: list[Path], found: Pairing, what: str) -> None:
    """Pairs the images and masks of one key."""
    if len(images) == len(masks) == 1:
        found.pairs.append((key, images[0], masks[0]))
        return
    by_suffix = {mask.suffix.lower(): mask for mask in masks}
    if {image.suffix.lower() for image in images} == set(by_suffix) and len(images) == len(masks) == len(by_suffix):
        found.pairs += [(key, image, by_suffix[image.suffix.lower()]) for image in images]
        return
    for image in images:
        others = [other.name for other in images if other != image]
        if len(masks) > 1:
            why = f"its {what} could be any of {', '.join(mask.name for mask in masks)}; leave only the right one there"
        else:
            why = (
                f"its {what} {masks[0].name} could also be that of {', '.join(others)}; call the {what} "
                f"{image.name}{masks[0].suffix} if it is this image's, and remove or rename the other image"
            )
        found.ambiguous.append((image, why))


def _by_key(files: Iterable[Keyed]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for key, path in files:
        found.setdefault(key, []).append(path)
    return found
