"""An export's options, its manifest and card, and the faults it refuses."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
import unicodedata
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image
from pydantic import ValidationError

from service.datasets.classes import IGNORE
from service.datasets.items import DatasetItem
from service.datasets.seen_hashes import SeenHashes
from service.datasets.writing.about import ExportAbout, ModelAbout, TrainingData
from service.datasets.writing.export import export_files
from service.datasets.writing.names import file_stem
from service.datasets.writing.options import ExportOptions
from service.datasets.writing.sinks import FolderSink, StoreSink, write_all, zip_pieces
from service.errors import InvalidDataset, MissingExtra
from service.kit import tar
from service.kit.output_file import ExportFile, Spool
from service.kit.png import encode_mask
from service.store.folder import FolderStore
from tests.service.datasets.scenes import (
    SCENE_CLASSES,
    digests,
    export,
    noise,
    png,
    scene,
    scenes,
)


def written(items: list[DatasetItem], about: ExportAbout | None = None, **options: object) -> dict[str, bytes]:
    chosen = ExportOptions.model_validate({"format": "folders"} | options)
    return {file.path: file.read() for file in export_files(items, SCENE_CLASSES, chosen, about)}


def mask_in(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as file:
        return np.array(file)


def test_classes_are_selected_ordered_renamed_and_merged() -> None:
    labels = np.array([[0, 1, 2, 3, 4, 255]], dtype=np.uint8).repeat(4, axis=0)
    item = DatasetItem("a", noise(1, 4, 6), labels)
    files = written([item], classes=("dot", "wasser", "background"), rename={"dot": "wet", "wasser": "wet"})
    assert mask_in(files["masks/a.png"])[0].tolist() == [1, 0, IGNORE, IGNORE, 0, IGNORE]
    listed = json.loads(files["dataset.json"])["classes"]
    assert [(entry["name"], entry["background"]) for entry in listed] == [("wet", False), ("background", True)]
    assert listed[0]["colour"] == list(SCENE_CLASSES.colours[4])
    files = written([item], classes=("background", "wasser"), dropped="background")
    assert mask_in(files["masks/a.png"])[0].tolist() == [0, 1, 0, 0, 0, IGNORE]


@pytest.mark.parametrize("options", [{"classes": ("nobody",)}, {"rename": {"nobody": "x"}}, {"dropped": "nobody"}])
def test_an_unknown_class_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(InvalidDataset, match="nobody"):
        written([], **options)


def many(count: int, masks: int) -> Iterator[DatasetItem]:
    image = noise(1, 4, 4)
    for number in range(count):
        labels = (
            np.array([[number % masks % 5, number % masks // 5 % 5], [number % masks // 25, 0]], dtype=np.uint8)
            .repeat(2, 0)
            .repeat(2, 1)
        )
        yield DatasetItem(f"{number}", image, labels)


def test_no_mask_is_in_two_splits_and_shares_are_met() -> None:
    shares = {"train": 0.7, "val": 0.2, "test": 0.1}
    files = written(list(many(800, 125)), format="coco", splits=shares, seed=1)
    lines = [json.loads(line) for line in files["manifest.jsonl"].splitlines()]
    sides: dict[str, set[str]] = {}
    for line in lines:
        sides.setdefault(line["labels_sha256"], set()).add(line["split"])
    assert len(sides) == 125
    assert all(len(side) == 1 for side in sides.values())
    counts = {split: sum(side == {split} for side in sides.values()) / 125 for split in shares}
    assert all(abs(counts[split] - share) < 0.1 for split, share in shares.items())
    again = written(list(many(600, 125)), format="coco", splits=shares, seed=1)
    assert {line["name"]: line["split"] for line in map(json.loads, again["manifest.jsonl"].splitlines())}.items() <= {
        line["name"]: line["split"] for line in lines
    }.items()
    other = written(list(many(800, 125)), format="coco", splits=shares, seed=2)
    assert other["manifest.jsonl"] != files["manifest.jsonl"]


@pytest.mark.parametrize(
    "splits", [{}, {"train": 0.5}, {"train": 1.5, "val": -0.5}, {"../up": 1.0}, {"Train": 1.0}, {"": 1.0}]
)
def test_invalid_splits_are_refused(splits: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        ExportOptions(format="coco", splits=splits)


def test_an_item_keeps_its_split_unless_the_name_is_invalid() -> None:
    files = written([DatasetItem("a", noise(1, 24, 31), scene(0), split="fold-2")])
    assert files["fold-2.txt"] == b"a\n"
    with pytest.raises(InvalidDataset, match="split"):
        written([DatasetItem("a", noise(1, 24, 31), scene(0), split="../../etc")])


@pytest.mark.parametrize("format", ["webdataset", "huggingface"])
def test_shards_end_by_items_or_by_bytes(format: str) -> None:
    ending = "tar" if format == "webdataset" else "parquet"

    def shards(**options: object) -> int:
        return sum(path.endswith(ending) for path in written(list(scenes()), format=format, **options))

    assert shards(shard_items=3) == 3
    assert shards(shard_items=100) == 1
    big = [
        DatasetItem(f"{number}", noise(number, 160, 160), np.zeros((160, 160), dtype=np.uint8)) for number in range(6)
    ]
    assert sum(path.endswith(ending) for path in written(big, format=format, shard_bytes=1 << 16)) == 6


def test_images_are_copied_where_they_can_be_and_encoded_where_they_cannot() -> None:
    labels = np.zeros((16, 16), dtype=np.uint8)
    flat = Image.new("RGB", (16, 16), (200, 30, 60))
    jpeg = io.BytesIO()
    flat.save(jpeg, "JPEG")
    given = {"p": noise(1, 16, 16), "j": jpeg.getvalue()}
    items = [DatasetItem(name, data, labels) for name, data in given.items()]
    as_png, as_jpeg = written(items), written(items, image_format="jpeg")
    assert as_png["images/p.png"] == given["p"]
    assert as_jpeg["images/j.jpg"] == given["j"]
    assert np.array_equal(mask_in(as_png["images/j.png"]), mask_in(given["j"]))
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
    as_jpeg, as_png = written(items[:2], image_format="jpeg"), written(items[2:])
    assert as_jpeg["images/o.jpg"] == files["o"]
    for data in (as_jpeg["images/t.jpg"], as_png["images/p.png"]):
        with Image.open(io.BytesIO(data)) as file:
            assert file.size == (16, 12)
            assert ExifTags.Base.Orientation not in file.getexif()


def test_grey_of_16_bits_keeps_its_levels() -> None:
    deep = np.linspace(0, 65535, 24 * 31).astype(np.uint16).reshape(24, 31)
    files = written([DatasetItem("a", png(deep), scene(0))], image_format="jpeg")
    found = mask_in(files["images/a.jpg"]).astype(int)[..., 0]
    assert np.abs(found - (deep >> 8)).max() <= 4


def test_a_mask_already_in_the_output_form_is_copied() -> None:
    own = encode_mask(scene(0), SCENE_CLASSES.colours, {"seed": 3})
    other = encode_mask(scene(0), [(number, 0, 0) for number in range(5)], {})
    files = written(
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


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (DatasetItem("a", noise(1, 24, 30), scene(0)), "30 x 24 px and its mask 31 x 24"),
        (DatasetItem("a", noise(1, 24, 31), scene(0) + 3), "holds label 5"),
        (DatasetItem("a", b"no image", scene(0)), "the image of 'a' cannot be decoded"),
        (DatasetItem("a", noise(1, 24, 31), b"no mask"), "cannot be decoded"),
        (DatasetItem("a", noise(1, 24, 31), scene(0).astype(np.int32)), "must be"),
        (DatasetItem("a", Path("/nowhere/at/all.png"), scene(0)), "cannot be read"),
    ],
)
@pytest.mark.parametrize("format", ["folders", "coco"])
def test_an_item_that_cannot_be_written_is_named(item: DatasetItem, message: str, format: str) -> None:
    with pytest.raises(InvalidDataset, match=message):
        written([item], format=format)


def test_two_items_of_one_name_are_refused_even_if_they_differ_in_case() -> None:
    with pytest.raises(InvalidDataset, match="an item before it"):
        written(
            [
                DatasetItem("a/B", noise(1, 24, 31), scene(0)),
                DatasetItem("A:b", noise(2, 24, 31), scene(0)),
            ]
        )


@settings(deadline=None)
@given(st.text(min_size=1, max_size=300))
def test_any_name_becomes_a_safe_file_name(name: str) -> None:
    stem = file_stem(name)
    assert 0 < len(stem.encode()) <= 151
    assert not set(stem) & set('/\\:*?"<>|\0\n\r')
    assert stem not in (".", "..")
    assert file_stem(unicodedata.normalize("NFD", name)) == stem or len(stem.encode()) > 100
    assert len(stem.splitlines()) == 1
    assert stem == stem.strip(" .")


def test_seen_hashes_detects_duplicates() -> None:
    seen = SeenHashes()
    assert all(seen.add(str(number)) for number in range(10_000))
    assert not any(seen.add(str(number)) for number in range(0, 10_000, 7))
    assert seen.add("new")


@settings(deadline=None)
@given(
    st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=180),
    st.binary(max_size=1500),
)
def test_a_tar_is_what_tarfile_reads(name: str, data: bytes) -> None:
    body = tar.members((name, data), ("b.json", b"{}"))
    whole = body + tar.end(len(body))
    assert len(whole) % tar.RECORD_BYTES == 0
    with tarfile.open(fileobj=io.BytesIO(whole)) as file:
        first, second = file.getmembers()
        assert (first.name, first.size, first.mtime, first.mode, first.uid, second.name) == (
            name,
            len(data),
            0,
            0o644,
            0,
            "b.json",
        )
        if first.isreg():
            assert file.extractfile(first).read() == data  # type: ignore[union-attr]


def test_the_manifest_has_the_hashes_of_the_files(tmp_path: Path) -> None:
    for format in ("folders", "coco", "voc", "cityscapes", "yolo"):
        folder = export(scenes(), SCENE_CLASSES, tmp_path / format, format=format)
        found, lines = (
            digests(folder),
            [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()],
        )
        assert len(lines) == 8
        named = set()
        for line, item in zip(lines, scenes(), strict=True):
            assert (line["name"], line["source"], line["metadata"]) == (item.name, item.source, item.metadata)
            for file in (value for value in line.values() if isinstance(value, dict) and "sha256" in value):
                assert found[file["path"]] == file["sha256"]
                assert (folder / file["path"]).stat().st_size == file["bytes"]
                named.add(file["path"])
            if "labels_sha256" in line:
                assert line["labels_sha256"] == hashlib.sha256(item.labels.tobytes()).hexdigest()
        rest = {path for path in found if path not in named}
        assert all(path.rsplit("/")[-1].endswith((".json", ".jsonl", ".txt", ".yaml", "README.md")) for path in rest), (
            rest
        )


def test_the_card_states_origin_and_limits_of_use() -> None:
    model = ModelAbout(
        id="toy@1.0.0",
        title="Toy | scenes",
        licence="CC-BY-4.0",
        intended_use="Tests.\n# Not a heading",
        limits_of_use="No more.",
        training_data=(TrainingData(name="Tiles", licence="CC0 1.0"),),
    )
    about = ExportAbout(
        title="Set\n---", models=(model,), parameters={"steps": 50}, seeds=(42,), real_data=(TrainingData(name="Own"),)
    )
    for format in ("folders", "huggingface"):
        card = written(list(scenes()), about=about, format=format)["README.md"].decode()
        for text in (
            "8 pairs", "5 synthetic, 3 real", "Never use it for clinical decisions", "Synthetic images were drawn",
            "`toy@1.0.0`", "seeds 0 to 7", "seeds of the jobs: 42", '"steps": 50', "Tiles: CC0 1.0", "CC-BY-4.0",
            "Own: not stated", "| 3 | never there |",
        ):  # fmt: skip
            assert text in card, text
        headings = [line for line in card.splitlines() if line.startswith("#")]
        assert headings == [
            "# Set ---",
            "## Files",
            "## Classes",
            "## How it was made",
            "## Licences",
            "## Intended use and limits",
        ]
        assert "улица \\| 道" in card
        assert card.startswith("---\ntask_categories:") == (format == "huggingface")
    assert (
        "Synthetic images were drawn"
        not in written([DatasetItem("a", noise(1, 24, 31), scene(0))])["README.md"].decode()
    )


def test_a_format_without_its_packages_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"pip install 'twinset\[export\]'"):
        written([], format="huggingface")


def test_zip_store_and_folder_hold_the_same_files(tmp_path: Path) -> None:
    options = ExportOptions(format="webdataset", shard_items=3)
    write_all(export_files(scenes(), SCENE_CLASSES, options), FolderSink(tmp_path / "a"))
    store = FolderStore(tmp_path / "store", link_secret=b"s" * 32, public_url="http://example.org")
    write_all(export_files(scenes(), SCENE_CLASSES, options), StoreSink(store, "exports/e"))
    packed = b"".join(zip_pieces(export_files(scenes(), SCENE_CLASSES, options)))
    assert packed == b"".join(zip_pieces(export_files(scenes(), SCENE_CLASSES, options)))
    with zipfile.ZipFile(io.BytesIO(packed)) as file:
        assert file.testzip() is None
        in_zip = {name: hashlib.sha256(file.read(name)).hexdigest() for name in file.namelist()}
    in_store = {
        info.key.removeprefix("exports/e/"): hashlib.sha256(store.get(info.key)).hexdigest()
        for info in store.list("exports/e/")
    }
    assert in_zip == in_store == digests(tmp_path / "a")


@pytest.mark.parametrize("path", ["../a", "/a", "a/../../b", ""])
def test_a_folder_sink_refuses_paths_out_of_the_folder(tmp_path: Path, path: str) -> None:
    with pytest.raises(InvalidDataset, match="leads out"):
        FolderSink(tmp_path / "deep")(ExportFile.of(path, b"x"))


def test_a_spool_may_be_read_twice_and_written_on() -> None:
    with Spool() as spool:
        spool.write(b"a" * 700_000)
        file = spool.as_file("x")
        assert file.read() == file.read() == b"a" * 700_000
        spool.write(b"b" * 700_000)
        assert spool.as_file("x").read() == b"a" * 700_000 + b"b" * 700_000


def test_long_files_are_moved_from_scratch_and_nothing_is_left_there(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    big = [
        DatasetItem(f"{number}", noise(number, 400, 400), np.zeros((400, 400), dtype=np.uint8)) for number in range(4)
    ]
    for format in ("webdataset", "huggingface"):
        options = ExportOptions(format=format)
        write_all(export_files(big, SCENE_CLASSES, options), FolderSink(tmp_path / "a" / format))
        write_all(
            export_files(big, SCENE_CLASSES, options, scratch=tmp_path / "b"), FolderSink(tmp_path / "b" / format)
        )
        assert digests(tmp_path / "a" / format) == digests(tmp_path / "b" / format)
        assert max(path.stat().st_size for path in (tmp_path / "b" / format).rglob("*")) > 1 << 20
    assert not list(tmp_path.rglob("*.part"))
    files = export_files(big * 1, SCENE_CLASSES, ExportOptions(format="webdataset", shard_items=3), scratch=tmp_path)
    next(files)
    assert list(tmp_path.glob(".export-*"))
    files.close()
    assert not list(tmp_path.glob(".export-*"))


def test_an_abandoned_export_closes_its_files(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for format in ("folders", "coco", "webdataset", "huggingface", "voc"):
        files = export_files(many(10_000, 100), SCENE_CLASSES, ExportOptions(format=format, shard_items=100))
        next(files)
        files.close()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_a_mask_merged_from_two_splits_is_in_neither() -> None:
    items = list(scenes(40))
    for number, item in enumerate(items):
        item.source_mask = f"mask{number}"
    halves = {"train": 0.5, "test": 0.5}
    sides = {
        line["name"]: line["split"]
        for line in map(json.loads, written(items, splits=halves)["manifest.jsonl"].splitlines())
    }
    one = next(item for item in items if sides[item.name] == "train")
    other = next(item for item in items if sides[item.name] == "test")
    same = next(item for item in items if sides[item.name] == "train" and item is not one)
    merged = [
        DatasetItem(
            "across",
            noise(101, 8, 8),
            np.zeros((8, 8), dtype=np.uint8),
            source_mask=f"{one.source_mask}+{other.source_mask}",
        ),
        DatasetItem(
            "within",
            noise(102, 8, 8),
            np.zeros((8, 8), dtype=np.uint8),
            source_mask=f"{one.source_mask}+{same.source_mask}",
        ),
    ]
    files = written([*items, *merged], splits=halves)
    lines = {line["name"]: line["split"] for line in map(json.loads, files["manifest.jsonl"].splitlines())}
    assert lines == {**sides, "within": "train"}
    assert b"1 items merged from masks of different splits were skipped" in files["README.md"]
    # with the splits that items came with, nothing is drawn, and nothing left out
    assert len(written([*items, *merged])["manifest.jsonl"].splitlines()) == 42
