"""An export's options, its manifest and card, and the faults it refuses."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from service.datasets.classes import IGNORE
from service.datasets.items import DatasetItem
from service.datasets.writing.about import ExportAbout, ModelAbout, TrainingData
from service.datasets.writing.options import ExportOptions
from service.errors import InvalidDataset, MissingExtra
from service.kit import tar
from tests.service.datasets.scenes import (
    SCENE_CLASSES,
    digests,
    export,
    exported,
    exported_mask,
    many_items,
    noise,
    scene,
    scenes,
)


def test_classes_are_selected_ordered_renamed_and_merged() -> None:
    labels = np.array([[0, 1, 2, 3, 4, 255]], dtype=np.uint8).repeat(4, axis=0)
    item = DatasetItem("a", noise(1, 4, 6), labels)
    files = exported([item], classes=("dot", "wasser", "background"), rename={"dot": "wet", "wasser": "wet"})
    assert exported_mask(files["masks/a.png"])[0].tolist() == [1, 0, IGNORE, IGNORE, 0, IGNORE]
    listed = json.loads(files["dataset.json"])["classes"]
    assert [(entry["name"], entry["background"]) for entry in listed] == [("wet", False), ("background", True)]
    assert listed[0]["colour"] == list(SCENE_CLASSES.colours[4])
    files = exported([item], classes=("background", "wasser"), dropped="background")
    assert exported_mask(files["masks/a.png"])[0].tolist() == [0, 1, 0, 0, 0, IGNORE]


@pytest.mark.parametrize("options", [{"classes": ("nobody",)}, {"rename": {"nobody": "x"}}, {"dropped": "nobody"}])
def test_an_unknown_class_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(InvalidDataset, match="nobody"):
        exported([], **options)


def test_no_mask_is_in_two_splits_and_shares_are_met() -> None:
    shares = {"train": 0.7, "val": 0.2, "test": 0.1}
    files = exported(list(many_items(800, 125)), format="coco", splits=shares, seed=1)
    lines = [json.loads(line) for line in files["manifest.jsonl"].splitlines()]
    sides: dict[str, set[str]] = {}
    for line in lines:
        sides.setdefault(line["labels_sha256"], set()).add(line["split"])
    assert len(sides) == 125
    assert all(len(side) == 1 for side in sides.values())
    counts = {split: sum(side == {split} for side in sides.values()) / 125 for split in shares}
    assert all(abs(counts[split] - share) < 0.1 for split, share in shares.items())
    again = exported(list(many_items(600, 125)), format="coco", splits=shares, seed=1)
    assert {line["name"]: line["split"] for line in map(json.loads, again["manifest.jsonl"].splitlines())}.items() <= {
        line["name"]: line["split"] for line in lines
    }.items()
    other = exported(list(many_items(800, 125)), format="coco", splits=shares, seed=2)
    assert other["manifest.jsonl"] != files["manifest.jsonl"]


@pytest.mark.parametrize(
    "splits", [{}, {"train": 0.5}, {"train": 1.5, "val": -0.5}, {"../up": 1.0}, {"Train": 1.0}, {"": 1.0}]
)
def test_invalid_splits_are_refused(splits: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        ExportOptions(format="coco", splits=splits)


def test_an_item_keeps_its_split_unless_the_name_is_invalid() -> None:
    files = exported([DatasetItem("a", noise(1, 24, 31), scene(0), split="fold-2")])
    assert files["fold-2.txt"] == b"a\n"
    with pytest.raises(InvalidDataset, match="split"):
        exported([DatasetItem("a", noise(1, 24, 31), scene(0), split="../../etc")])


@pytest.mark.parametrize("format", ["webdataset", "huggingface"])
def test_shards_end_by_items_or_by_bytes(format: str) -> None:
    ending = "tar" if format == "webdataset" else "parquet"

    def shards(**options: object) -> int:
        return sum(path.endswith(ending) for path in exported(list(scenes()), format=format, **options))

    assert shards(shard_items=3) == 3
    assert shards(shard_items=100) == 1
    big = [
        DatasetItem(f"{number}", noise(number, 160, 160), np.zeros((160, 160), dtype=np.uint8)) for number in range(6)
    ]
    assert sum(path.endswith(ending) for path in exported(big, format=format, shard_bytes=1 << 16)) == 6


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
        exported([item], format=format)


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
        card = exported(list(scenes()), about=about, format=format)["README.md"].decode()
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
        not in exported([DatasetItem("a", noise(1, 24, 31), scene(0))])["README.md"].decode()
    )


def test_a_format_without_its_packages_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"pip install 'twinset\[export\]'"):
        exported([], format="huggingface")


def test_a_mask_merged_from_two_splits_is_in_neither() -> None:
    items = list(scenes(40))
    for number, item in enumerate(items):
        item.source_mask = f"mask{number}"
    halves = {"train": 0.5, "test": 0.5}
    sides = {
        line["name"]: line["split"]
        for line in map(json.loads, exported(items, splits=halves)["manifest.jsonl"].splitlines())
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
    files = exported([*items, *merged], splits=halves)
    lines = {line["name"]: line["split"] for line in map(json.loads, files["manifest.jsonl"].splitlines())}
    assert lines == {**sides, "within": "train"}
    assert b"1 items merged from masks of different splits were skipped" in files["README.md"]
    # with the splits that items came with, nothing is drawn, and nothing is skipped
    assert len(exported([*items, *merged])["manifest.jsonl"].splitlines()) == 42
