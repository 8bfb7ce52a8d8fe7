"""DICOM images and NIfTI volumes, slice by slice, with a window that is given or the file's own; and 16-bit levels."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.datasets.items import DatasetItem
from service.datasets.reading.checking import read_items
from service.datasets.reading.levels import Levels, read_window, windowed_png
from service.datasets.reading.opening import detect_format, open_dataset
from service.datasets.reading.report import Findings, ReadReport
from service.errors import InvalidDataset
from service.kit.image_files import open_image_file
from tests.service.datasets.scenes import png

nibabel = pytest.importorskip("nibabel")
pydicom = pytest.importorskip("pydicom")

LABELS = np.repeat(np.arange(3, dtype=np.uint8), 4)[None].repeat(8, axis=0)
"""``(8, 12)``: three classes side by side."""


def folder(root: Path) -> Path:
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "classes.txt").write_text("background\nliver\ntumour\n")
    return root


def read(root: Path, levels: Levels | None = None) -> tuple[list[DatasetItem], ReadReport]:
    source, findings = open_dataset(root, levels=levels), Findings()
    items = list(read_items(source, findings, levels=levels or Levels()))
    return items, findings.report(source.format)


def grey(item: DatasetItem) -> np.ndarray:
    with open_image_file(item.image_bytes) as file:
        return np.asarray(file)[..., 0]


def write_dicom(path: Path, levels: np.ndarray, **members: object) -> None:
    """Levels in Hounsfield units, stored with an intercept as scanners do."""
    file = pydicom.Dataset()
    file.file_meta = pydicom.dataset.FileMetaDataset()
    file.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = pydicom.uid.CTImageStorage
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = "1.2.3"
    file.Rows, file.Columns = levels.shape
    file.SamplesPerPixel, file.PhotometricInterpretation, file.PixelRepresentation = 1, "MONOCHROME2", 0
    file.BitsAllocated, file.BitsStored, file.HighBit = 16, 12, 11
    file.RescaleSlope, file.RescaleIntercept = 1, -1024
    for name, value in members.items():
        setattr(file, name, value)
    file.PixelData = (levels + 1024).astype("<u2").tobytes()
    file.save_as(path, enforce_file_format=True)


def test_dicom_is_read_through_its_own_window_or_the_given_one(tmp_path: Path) -> None:
    root, levels = folder(tmp_path / "ct"), np.linspace(-200, 300, 96).reshape(8, 12).round()
    write_dicom(root / "images" / "a.dcm", levels, WindowCenter=40, WindowWidth=400)
    (root / "masks" / "a.png").write_bytes(png(LABELS))
    assert detect_format(root) == "medical"
    [item], report = read(root)
    assert report.clean
    assert np.abs(grey(item) - ((levels + 160) * (255 / 400)).clip(0, 255)).max() <= 0.5
    assert np.array_equal(item.labels, LABELS)
    [item], _ = read(root, Levels(-200, 300))
    assert np.abs(grey(item) - ((levels + 200) * (255 / 500)).clip(0, 255)).max() <= 0.5
    write_dicom(
        root / "images" / "a.dcm", levels, WindowCenter=40, WindowWidth=400, PhotometricInterpretation="MONOCHROME1"
    )
    [item], _ = read(root)
    assert np.abs(grey(item) - (255 - (levels + 160) * (255 / 400)).clip(0, 255)).max() <= 0.5


def test_slices_of_a_volume_are_items_with_their_labels(tmp_path: Path) -> None:
    root, rng = folder(tmp_path / "mr"), np.random.default_rng(0)
    levels = rng.integers(0, 2000, (12, 8, 5)).astype(np.int16)
    labels = np.stack([np.roll(LABELS, shift, axis=1).T for shift in range(5)], axis=2)
    nibabel.save(nibabel.Nifti1Image(levels, np.eye(4)), root / "images" / "p1.nii.gz")
    nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), root / "masks" / "p1.nii.gz")
    (root / "test.txt").write_text("p1\n")
    items, report = read(root, Levels(0, 1000))
    assert [item.name for item in items] == [f"p1/{place:04d}" for place in range(5)]
    assert (report.items, report.clean, report.splits) == (5, True, {"test": 5})
    for place, item in enumerate(items):
        wanted = (levels[..., place].T * (255 / 1000)).round().clip(0, 255)
        assert np.array_equal(grey(item), wanted)
        assert np.array_equal(item.labels, labels[..., place].T)


def test_levels_without_a_window_are_left_out_with_the_remedy(tmp_path: Path) -> None:
    root = folder(tmp_path / "none")
    write_dicom(root / "images" / "a.dcm", np.zeros((8, 12)))
    (root / "masks" / "a.png").write_bytes(png(LABELS))
    (root / "images" / "torn.dcm").write_bytes(b"no DICOM")
    (root / "masks" / "torn.png").write_bytes(png(LABELS))
    volume = nibabel.Nifti1Image(np.zeros((12, 8, 1), dtype=np.int16), np.eye(4))
    nibabel.save(volume, root / "images" / "b.nii")
    nibabel.save(volume, root / "masks" / "b.nii")
    nibabel.save(volume, root / "images" / "alone.nii")
    items, report = read(root)
    assert items == []
    found = {fault.file: fault.detail for group in report.faults for fault in group.first}
    assert "--window LOW,HIGH" in found["images/a.dcm"]
    assert "--window LOW,HIGH" in found["images/b.nii/0000"]
    assert "cannot be decoded as DICOM" in found["images/torn.dcm"]
    assert "masks has no alone, a NIfTI volume" in found["images/alone.nii"]


def test_a_folder_of_images_with_a_dicom_file_among_them_is_no_medical_one(tmp_path: Path) -> None:
    root = folder(tmp_path / "mixed")
    write_dicom(root / "images" / "a.dcm", np.zeros((8, 12)), WindowCenter=0, WindowWidth=100)
    (root / "images" / "b.png").write_bytes(png(np.zeros((8, 12), dtype=np.uint8)))
    for name in "ab":
        (root / "masks" / f"{name}.png").write_bytes(png(LABELS))
    items, report = read(root)
    assert (report.format, [item.name for item in items]) == ("folders", ["b"])
    [group] = report.faults
    assert "a.dcm there is of a kind that is not read" in group.first[0].detail


def test_16_bit_images_that_come_out_nearly_black_need_a_window_where_it_is_strict(tmp_path: Path) -> None:
    root = folder(tmp_path / "twelve")
    levels = np.linspace(0, 4095, 96).reshape(8, 12).astype(np.uint16)
    Image.fromarray(levels).save(root / "images" / "a.png")
    (root / "masks" / "a.png").write_bytes(png(LABELS))
    [item], report = read(root)
    assert [group.kind for group in report.faults] == ["assumed"]
    with pytest.raises(InvalidDataset, match=r"images/a.png: its levels end at 4095 of 65535, .*--window LOW,HIGH"):
        read(root, Levels(strict=True))
    [item], report = read(root, Levels(0, 4095, strict=True))
    assert report.faults == ()
    assert np.array_equal(grey(item), (levels * (255 / 4095)).round())


def deep_png(levels: np.ndarray, channels: int) -> bytes:
    """A PNG of 16 bits per channel, which Pillow does not write: grey with alpha, RGB or RGBA."""
    pixels = np.repeat(levels[..., None], channels, axis=-1).astype(">u2")
    if channels != 3:
        pixels[..., -1] = 0xFFFF
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", levels.shape[1], levels.shape[0], 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_channels_of_16_bits_that_come_out_nearly_black_are_refused_and_have_no_window(
    tmp_path: Path, channels: int
) -> None:
    root = folder(tmp_path / "channels")
    (root / "images" / "a.png").write_bytes(deep_png(np.linspace(0, 4095, 96).reshape(8, 12), channels))
    (root / "masks" / "a.png").write_bytes(png(LABELS))
    _, report = read(root)
    assert [group.kind for group in report.faults] == ["assumed"]
    with pytest.raises(InvalidDataset, match=r"end at 4095 of 65535, .*Multiply its levels by 16 if it should not be$"):
        read(root, Levels(strict=True))
    with pytest.raises(InvalidDataset, match=r"a\.png: it has several channels of 16 bits.*save it as 16-bit grey"):
        read(root, Levels(0, 4095, strict=True))
    (root / "images" / "a.png").write_bytes(deep_png(np.linspace(0, 65535, 96).reshape(8, 12), channels))
    _, report = read(root, Levels(strict=True))
    assert report.faults == ()


@pytest.mark.parametrize("kind", ["int32", "float32"])
def test_numbers_of_32_bits_are_read_through_a_window_alone(tmp_path: Path, kind: str) -> None:
    root = folder(tmp_path / kind)
    levels = np.linspace(-1000, 1000, 96).reshape(8, 12).round().astype(kind)
    Image.fromarray(levels).save(root / "images" / "a.tif")
    (root / "masks" / "a.png").write_bytes(png(LABELS))
    items, report = read(root, Levels(strict=True))
    assert items == []
    assert "without a defined white; save it with 8 or 16 bits" in report.faults[0].first[0].detail
    assert "--window LOW,HIGH" in report.faults[0].first[0].detail
    [item], report = read(root, Levels(-160, 240, strict=True))
    assert report.faults == ()
    assert np.array_equal(grey(item), ((levels.astype(np.float64) + 160) * (255 / 400)).round().clip(0, 255))


def test_labels_of_other_slices_or_mirrored_axes_are_told(tmp_path: Path) -> None:
    root, rng = folder(tmp_path / "mr"), np.random.default_rng(0)
    levels = rng.integers(0, 2000, (12, 8, 3)).astype(np.int16)
    labels = np.repeat(LABELS.T[..., None], 3, axis=2)
    mirrored = np.diag([-1.0, -1.0, 1.0, 1.0])
    for name, affine, given in (("deeper", np.eye(4), labels.repeat(2, axis=2)), ("mirrored", mirrored, labels)):
        image = levels + (name == "mirrored")
        nibabel.save(nibabel.Nifti1Image(image.astype(np.int16), np.eye(4)), root / "images" / f"{name}.nii")
        nibabel.save(nibabel.Nifti1Image(given, affine), root / "masks" / f"{name}.nii")
    items, report = read(root, Levels(0, 1000))
    assert [item.name for item in items] == [f"mirrored/{place:04d}" for place in range(3)]
    found = {group.kind: group for group in report.faults}
    assert set(found) == {"size_differs", "assumed"}
    assert "it is 12 x 8 x 3, and its labels are 12 x 8 x 6" in found["size_differs"].first[0].detail
    assert "its axes lead to RAS, and those of its labels to LPS" in found["assumed"].first[0].detail


@pytest.mark.filterwarnings("error")
def test_where_nothing_was_measured_an_image_is_black() -> None:
    levels = np.array([[np.nan, -np.inf, -50.0, 100.0, np.inf]], dtype=np.float32)
    with open_image_file(windowed_png(levels, (-100.0, 100.0))) as image:
        assert np.array(image)[0, :, 0].tolist() == [0, 0, 64, 255, 255]


def test_a_window_of_another_form_is_refused() -> None:
    assert read_window("-160,240").window == (-160.0, 240.0)
    for text in ("5", "a,b", "7,7", "9,2", "nan,nan", "-inf,5", "0,inf"):
        with pytest.raises(ValueError, match="should look like --window=0,4095"):
            read_window(text)
