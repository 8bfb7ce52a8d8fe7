"""Images and masks of an export: copied byte for byte where possible, else encoded anew."""

from __future__ import annotations

import io

import numpy as np
from PIL import ExifTags, Image

from service.datasets.items import DatasetItem
from service.kit.png import encode_mask
from tests.service.datasets.scenes import (
    SCENE_CLASSES,
    exported,
    exported_mask,
    noise,
    png,
    scene,
)


def test_images_are_copied_where_they_can_be_and_encoded_where_they_cannot() -> None:
    labels = np.zeros((16, 16), dtype=np.uint8)
    flat = Image.new("RGB", (16, 16), (200, 30, 60))
    jpeg = io.BytesIO()
    flat.save(jpeg, "JPEG")
    given = {"p": noise(1, 16, 16), "j": jpeg.getvalue()}
    items = [DatasetItem(name, data, labels) for name, data in given.items()]
    as_png, as_jpeg = exported(items), exported(items, image_format="jpeg")
    assert as_png["images/p.png"] == given["p"]
    assert as_jpeg["images/j.jpg"] == given["j"]
    assert np.array_equal(exported_mask(as_png["images/j.png"]), exported_mask(given["j"]))
    assert as_jpeg["images/p.jpg"][:3] == b"\xff\xd8\xff"


def test_an_image_that_exif_data_rotate_is_written_as_stored_without_them() -> None:
    turned, other = Image.Exif(), Image.Exif()
    turned[ExifTags.Base.Orientation], other[ExifTags.Base.Software] = 6, "a camera"
    flat, files = Image.new("RGB", (16, 12), (200, 30, 60)), {}
    for name, exif, kind in (("t", turned, "JPEG"), ("o", other, "JPEG"), ("p", turned, "PNG")):
        out = io.BytesIO()
        flat.save(out, kind, exif=exif)
        files[name] = out.getvalue()
    items = [DatasetItem(name, data, np.zeros((12, 16), dtype=np.uint8)) for name, data in files.items()]
    as_jpeg, as_png = exported(items[:2], image_format="jpeg"), exported(items[2:])
    assert as_jpeg["images/o.jpg"] == files["o"]
    for data in (as_jpeg["images/t.jpg"], as_png["images/p.png"]):
        with Image.open(io.BytesIO(data)) as file:
            assert file.size == (16, 12)
            assert ExifTags.Base.Orientation not in file.getexif()


def test_grey_of_16_bits_keeps_its_levels() -> None:
    deep = np.linspace(0, 65535, 24 * 31).astype(np.uint16).reshape(24, 31)
    files = exported([DatasetItem("a", png(deep), scene(0))], image_format="jpeg")
    found = exported_mask(files["images/a.jpg"]).astype(int)[..., 0]
    assert np.abs(found - (deep >> 8)).max() <= 4


def test_a_mask_already_in_the_output_form_is_copied() -> None:
    own = encode_mask(scene(0), SCENE_CLASSES.colours, {"seed": 3})
    other = encode_mask(scene(0), [(number, 0, 0) for number in range(5)], {})
    files = exported(
        [
            DatasetItem("own", noise(1, 24, 31), own),
            DatasetItem("other", noise(2, 24, 31), other),
            DatasetItem("grey", noise(3, 24, 31), png(scene(0))),
        ]
    )
    assert files["masks_colour/own.png"] == own
    assert (
        files["masks_colour/other.png"]
        == files["masks_colour/grey.png"]
        == encode_mask(scene(0), SCENE_CLASSES.colours, {})
    )
