"""Tests of what readers raise over damaged files: it names the file, and no exception leaves them as it came."""

from __future__ import annotations

import io
import lzma
import random
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service.datasets.reading.checking import read_items
from service.datasets.reading.entry import Annotation, Entry
from service.datasets.reading.faults import named_faults, naming_faults
from service.datasets.reading.image_files import open_image
from service.datasets.reading.opening import open_dataset
from service.datasets.reading.report import EntryFault, Findings
from service.errors import InvalidDataset
from tests.service.datasets.hand_written import SQUARE, TWO, faults, listed, write
from tests.service.datasets.scenes import noise, png, read

RAISED = (
    StopIteration(),
    IndexError("list index out of range"),
    KeyError("size"),
    struct.error("unpack requires a buffer of 8 bytes"),
    zlib.error("Error -3"),
    lzma.LZMAError("Corrupt input data"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    RecursionError("maximum recursion depth exceeded"),
    SyntaxError("not a TIFF file"),
    Image.DecompressionBombError("too large"),
    OverflowError("too large"),
    AttributeError("'NoneType' object has no attribute 'get'"),
    OSError("truncated"),
)


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_whatever_a_source_raises_becomes_a_named_error(tmp_path: Path, error: Exception) -> None:
    class Source:
        format = "coco"
        root = tmp_path
        classes = TWO

        @naming_faults
        def entries(self, findings: Findings) -> Iterator[Entry]:
            if findings is not None:
                raise error
            yield  # type: ignore[unreachable]

    with pytest.raises(InvalidDataset, match="the dataset, read as coco, cannot be read") as refused:
        list(read_items(Source(), Findings()))
    assert type(error).__name__ in str(refused.value)


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_whatever_a_mask_raises_skips_its_image_alone(tmp_path: Path, error: Exception) -> None:
    folder = write(tmp_path, **{"a.png": noise(1, 10, 12), "b.png": noise(2, 10, 12)})

    def broken(width: int, height: int) -> Annotation:
        raise error

    class Source:
        format = "folders"
        root = folder
        classes = TWO

        def entries(self, findings: Findings) -> Iterator[Entry]:
            yield Entry("a", folder / "a.png", broken)
            yield Entry("b", folder / "b.png", lambda width, height: Annotation(SQUARE))

    findings = Findings()
    assert [item.name for item in read_items(Source(), findings)] == ["b"]
    report = findings.report("folders")
    assert faults(report) == {"unreadable": ["a.png"]}
    assert type(error).__name__ in report.faults[0].first[0].detail


def test_errors_of_the_machine_pass_for_another_attempt() -> None:
    with pytest.raises(OSError, match="No space left"), named_faults("a.json"):
        raise OSError(28, "No space left on device")
    with pytest.raises(InvalidDataset, match=r"a.json cannot be read \(OSError: cut off\)"), named_faults("a.json"):
        raise OSError("cut off")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF"])
def test_a_damaged_image_never_raises_anything_but_its_own_fault(kind: str) -> None:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32), dtype=np.uint8)).save(out, kind)
    data, chance = out.getvalue(), random.Random(7)
    for _ in range(300):
        broken = bytearray(data[: chance.randrange(1, len(data) + 1)] if chance.random() < 0.3 else data)
        for _ in range(chance.randrange(1, 6)):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        with suppress(EntryFault):
            open_image(bytes(broken))


TEXTS: dict[str, dict[str, Any]] = {
    "dataset.json": {"dataset.json": listed(["background", "cell"])},
    "coco": {
        "result.json": '{"images": [{"id": 1, "file_name": "images/a.png", "width": 12, "height": 10}], "annotations": '
        '[{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 6, 1, 6, 6]], "iscrowd": 0}], '
        '"categories": [{"id": 1, "name": "cell"}]}'
    },
    "yolo": {"data.yaml": "train: images\nval: images\nnames: [cell]\n", "labels/a.txt": "0 .1 .1 .6 .1 .6 .6\n"},
    "class_dict.csv": {"class_dict.csv": "name,r,g,b\nbackground,0,0,0\ncell,250,50,83\n"},
    "labelmap.txt": {"labelmap.txt": "background:0,0,0::\ncell:250,50,83::\n"},
    "captions": {"classes.txt": "background\ncell\n", "captions.jsonl": '{"stem": "a", "text": "b"}\n'},
}
PIECES = (b"[", b"{", b'"', b"\xff\xfe", b"\0", b"null", b"1e999", b"-1", b"[" * 2000, b"\xe2\x80\xa8", b"NaN", b"''")


@pytest.mark.parametrize("form", TEXTS)
def test_a_damaged_text_never_raises_anything_but_a_named_error(tmp_path: Path, form: str) -> None:
    chance = random.Random(form)
    files = TEXTS[form]
    images = {"images/a.png": noise(1, 10, 12)}
    images |= {} if form in ("coco", "yolo") else {"masks/a.png": png(SQUARE)}
    for number in range(60):
        name = chance.choice(list(files))
        broken = bytearray(files[name].encode())
        for _ in range(chance.randrange(1, 4)):
            place = chance.randrange(len(broken) + 1)
            broken[place : place + chance.randrange(6)] = chance.choice(PIECES)
        folder = write(tmp_path / str(number), **images, **{**files, name: bytes(broken)})
        with suppress(InvalidDataset):
            read(folder)


def test_the_file_in_hand_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(
        tmp_path,
        **{"images/a.png": noise(1, 10, 12), "masks/a.png": png(SQUARE), "classes.txt": "background\ncell\n"},
    )

    def broken(source: object, **options: object) -> None:
        raise IndexError("out of range")

    monkeypatch.setattr("service.datasets.reading.mask_decoder.read_mask_samples", broken)
    with pytest.raises(InvalidDataset, match=r"masks/a.png cannot be read \(IndexError: out of range\)"):
        open_dataset(folder)


def test_an_image_of_more_objects_than_sixteen_bits_can_number_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "many.png").write_bytes(png(np.zeros((300, 300, 3), dtype=np.uint8)))
    (tmp_path / "sparse.png").write_bytes(png(np.full((300, 300, 3), 9, dtype=np.uint8)))
    numbers = np.arange(300 * 300, dtype=np.int32).reshape(300, 300)

    class Source:
        format = "coco"
        root = tmp_path
        classes = TWO

        def entries(self, findings: Findings) -> Iterator[Entry]:
            for name, shown in (("many", numbers), ("sparse", numbers // 2 * 2)):
                yield Entry(
                    name=name,
                    image=tmp_path / f"{name}.png",
                    annotate=lambda width, height, shown=shown: Annotation(np.ones((300, 300), np.uint8), shown),
                )

    findings = Findings()
    assert [item.name for item in read_items(Source(), findings)] == ["sparse"]
    [group] = findings.report("coco").faults
    assert group.first[0].detail == "it has 89999 objects; an image has at most 65535, so cut it into tiles"
