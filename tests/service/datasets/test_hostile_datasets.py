"""Hostile datasets: valid ones of every format, damaged at random places, packed or not.

Whatever is damaged, a reader ends within seconds, with items or with a refusal that says why, and never with an error
that nobody foresaw. FUZZ_DATASETS=10000 FUZZ_SEED=1 tries more than the ordinary run's few; a failure names the number
of its dataset, which FUZZ_FIRST=number FUZZ_DATASETS=1 makes again. ``-s`` shows what came of them.
"""

from __future__ import annotations

import io
import json
import os
import random
import re
import resource
import shutil
import struct
import tarfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from service.datasets.reading.checking import read_items
from service.datasets.reading.opening import open_dataset
from service.datasets.reading.report import Findings
from service.datasets.reading.unpacking import UnpackLimits, unpack
from service.datasets.statistics import StatisticsCollector
from service.errors import TwinsetError
from tests.service.datasets.scenes import SCENE_CLASSES, export, scenes
from tests.service.datasets.test_datumaro import ALL, box, dataset, item, mask, polygon, tag

COUNT = int(os.environ.get("FUZZ_DATASETS", "150"))
FIRST = int(os.environ.get("FUZZ_FIRST", "0"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))
MAX_S = 10.0
MAX_GROWTH_BYTES = 700 << 20
FORMATS = ("folders", "coco", "voc", "cityscapes", "yolo", "huggingface", "webdataset")
LIMITS = UnpackLimits(max_bytes=64 << 20)
Files = dict[str, bytes]

NUMBERS = [0, -1, 1, 255, 256, 2**31, 2**63, -(2**63), 10**40, 1e308, float("nan"), float("inf"), 0.5, True]
TEXTS = ["", "\x00", "../../x", "/etc/passwd", "C:\\x", "a" * 300, "\u202e", "e\u0301", "con", ".", "-1", "1.0", "{}"]
VALUES = [None, [], {}, [[]], [[[]]], *NUMBERS, *TEXTS]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> list[Files]:
    """A small dataset in each format, COCO twice: with outlines and with run-length encodings; and Datumaro's."""
    found = []
    for format in (*FORMATS, "coco"):
        folder = tmp_path_factory.mktemp(format)
        options = {"polygons": True} if any("annotations" in path for files in found for path in files) else {}
        export(scenes(4), SCENE_CLASSES, folder / "set", format=format, **(options if format == "coco" else {}))
        root = folder / "set"
        found.append({p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()})
    written = [mask(group=1), box(group=1), polygon(label=1, z_order=2)], [mask(ALL, 1), tag()]
    root = dataset(tmp_path_factory.mktemp("datumaro"), *(item(f"{n}", *some) for n, some in enumerate(written)))
    return [*found, {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}]


def flip(data: bytes, rng: random.Random) -> bytes:
    """Some bytes changed."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8, 64])):
        if changed:
            changed[rng.randrange(len(changed))] = rng.choice([0, 255, 127, rng.randrange(256)])
    return bytes(changed)


def cut(data: bytes, rng: random.Random) -> bytes:
    """The end missing, or a piece in the middle."""
    a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return data[:a] if rng.random() < 0.5 else data[:a] + data[b:]


def repeat(data: bytes, rng: random.Random) -> bytes:
    """A piece many times over."""
    a = rng.randrange(len(data) + 1)
    return data[:a] + data[a : a + rng.choice([1, 16, 400])] * rng.choice([2, 100, 5000]) + data[a:]


def claim(data: bytes, rng: random.Random) -> bytes:
    """A number in a header, big or little endian, replaced by another."""
    if len(data) < 8:
        return data
    at = rng.randrange(min(len(data) - 4, 512))
    number = rng.choice([0, 1, 2**31 - 1, 2**32 - 1, 65_535, 50_000, rng.randrange(2**32)])
    return data[:at] + struct.pack(rng.choice(["<I", ">I"]), number) + data[at + 4 :]


def speak(data: bytes, rng: random.Random) -> bytes:
    """A value of JSON replaced by another, or a word of text."""
    try:
        value = json.loads(data)
    except ValueError:
        words = re.split(rb"([\s,:;]+)", data)
        at = rng.randrange(len(words))
        words[at] = rng.choice([str(rng.choice(VALUES)).encode(), b"&a [*a,*a]", b"!!python/object:os.system x", b"<<"])
        return b"".join(words)
    holders: list[tuple[list[object] | dict[str, object], object]] = []

    def visit(node: object) -> None:
        pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for name, child in pairs:
            holders.append((node, name))  # type: ignore[arg-type]
            visit(child)

    visit(value)
    if holders:
        holder, name = rng.choice(holders)
        choice = rng.random()
        if choice < 0.2 and isinstance(holder, dict):
            del holder[name]  # type: ignore[arg-type]
        elif choice < 0.3 and isinstance(holder, list):
            holder *= rng.choice([0, 2, 50])
        else:
            holder[name] = rng.choice(VALUES)  # type: ignore[index]
    return json.dumps(value).encode()


DAMAGES: list[Callable[[bytes, random.Random], bytes]] = [flip, cut, repeat, claim, speak, speak]


def damaged(originals: list[Files], rng: random.Random) -> Files:
    """A dataset with one to three faults in its files or in their names."""
    files = dict(rng.choice(originals))
    for _ in range(rng.choice([1, 1, 2, 3])):
        path = rng.choice(sorted(files))
        what = rng.random()
        if what < 0.75:
            files[path] = rng.choice(DAMAGES)(files[path], rng)
        elif what < 0.82:
            files[path] = files[rng.choice(sorted(files))]
        elif what < 0.89:
            files.pop(path)
        else:
            new = re.sub(r"[^/]+$", lambda _: rng.choice([*TEXTS[5:8], "x.PNG", "x", "._x", "x.png.png"]), path)
            files[new if new not in files else path] = files[path]
        if not files:
            return dict(originals[0])
    return files


def pack(files: Files, rng: random.Random) -> bytes:
    """The files as a tar, a compressed tar or a zip, which may be damaged too."""
    out = io.BytesIO()
    if (kind := rng.choice(["tar", "gz", "bz2", "xz", "zip"])) == "zip":
        with zipfile.ZipFile(out, "w", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as packed:
            for path, data in files.items():
                packed.writestr(path, data)
    else:
        with tarfile.open(fileobj=out, mode=f"w:{'' if kind == 'tar' else kind}") as tar:  # type: ignore[call-overload]
            for path, data in files.items():
                info = tarfile.TarInfo(path)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    data = out.getvalue()
    return rng.choice([flip, cut, claim, repeat])(data, rng) if rng.random() < 0.5 else data


def lay(files: Files, folder: Path) -> None:
    """Writes the files below ``folder``; names that a file system cannot hold are left out."""
    for path, data in files.items():
        target = folder / path
        if ".." in target.parts:
            continue
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        except (OSError, ValueError):
            continue


def read(files: Files, folder: Path, rng: random.Random) -> str:
    """Reads the dataset as an import does; how it ended. Raises what nobody foresaw."""
    place = folder / "set"
    try:
        if rng.random() < 0.4:
            archive = folder / "archive"
            archive.write_bytes(pack(files, rng))
            unpack(archive, place, LIMITS)
        else:
            place.mkdir()
            lay(files, place)
        source = open_dataset(place)
        findings, statistics, items = Findings(), StatisticsCollector(source.classes), 0
        for item in read_items(source, findings):
            statistics.add(item.mask)
            items += 1
        findings.report(source.format)
        return f"{source.format}: {'items' if items else 'no item'}"
    except TwinsetError as error:
        if not str(error).isprintable():
            raise ValueError(f"a message that could command a terminal: {str(error)!r}") from None
        return type(error).__name__


def test_hostile_datasets_are_read_or_refused_and_nothing_else(originals: list[Files], tmp_path: Path) -> None:
    ended: Counter[str] = Counter()
    failures: list[str] = []
    slowest = 0.0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    for number in range(FIRST, FIRST + COUNT):
        rng = random.Random(f"{SEED}/{number}")
        folder = tmp_path / "one"
        folder.mkdir()
        started = time.monotonic()
        try:
            ended[read(damaged(originals, rng), folder, rng)] += 1
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            failures.append(f"{number}: {type(error).__name__}: {error} ({where.filename}:{where.lineno})")
        took = time.monotonic() - started
        slowest = max(slowest, took)
        if took > MAX_S:
            failures.append(f"{number}: took {took:.1f} s")
        shutil.rmtree(folder)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    print(f"\n{COUNT} datasets, seed {SEED}: {dict(sorted(ended.items()))}; slowest {slowest:.1f} s; +{grown >> 20} MB")
    assert failures == []
    assert grown < MAX_GROWTH_BYTES
    assert len(ended) > 3
