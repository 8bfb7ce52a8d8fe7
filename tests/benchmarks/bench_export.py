"""Rate of large exports against ``tar``, and growth of their memory.

    python tests/benchmarks/bench_export.py [--pairs 100000] [--side 64] [--folder DIR]

For each format a resumable export, with its checkpoints, goes into a folder store, in a process of its own, over pairs
that cost nothing to make (a few images, each with its number in it, and a few masks under many names), once for a tenth
of the pairs and once for all; the figures to follow are its peak resident memory, and the growth of that. WebDataset is
also timed against ``tar``, which packs the same files from a folder on the same disk, alternately; the figure is the
ratio of their rates. The store flushes every object to the disk and tar does not flush its file, so tar is also
timed with a flush. Limits: peak <= 400 MB, growth <= 10 %, WebDataset >= 0.5 of tar.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from service.datasets.classes import ClassList
from service.datasets.items import DatasetItem
from service.datasets.writing.about import ExportAbout
from service.datasets.writing.options import ExportOptions
from service.exports.location import ExportLocation
from service.exports.run import run_export
from service.exports.sources import StoredMix
from service.kit.png import encode_image, encode_mask
from service.store.folder import FolderStore

CLASSES = ClassList.of(["background", "nucleus", "stroma", "gland"])
IMAGES, MASKS = 16, 256
PREFIX = "exports/bench/"
PEAK_MB, GROWTH, TAR_SHARE = 400, 1.10, 0.5
METADATA = {
    "model": "bench@1.0.0",
    "steps": 50,
    "guidance_scale": 1.5,
    "eta": 0.7,
    "mean_confidence": 0.97,
    "ppv": 0.93,
}


def pairs(count: int, side: int, start: int = 0) -> Iterator[DatasetItem]:
    """Pairs ``start`` to ``count`` of ``side`` pixels: noise, and masks of a few overlapping boxes."""
    random = np.random.default_rng(0)
    images = [encode_image(random.integers(0, 256, (side, side, 3)).astype(np.uint8), {}) for _ in range(IMAGES)]
    digests = [hashlib.sha256(image) for image in images]
    masks = []
    for _ in range(MASKS):
        labels = np.zeros((side, side), dtype=np.uint8)
        for label in random.permutation([1, 2, 3, 1]):
            top, left = random.integers(0, side - side // 4, 2)
            labels[top : top + side // 3, left : left + side // 3] = label
        masks.append(encode_mask(labels, CLASSES.colours, {}))
    for number in range(start, count):
        # bytes after the end of a PNG are not part of the image, but change its hash
        mark = b"%08d" % number
        item = DatasetItem(
            name=f"{number:08d}",
            image=images[number % IMAGES] + mark,
            mask=masks[number % MASKS],
            source="synthetic",
            source_mask=str(number % MASKS),
            metadata={**METADATA, "seed": number},
        )
        # as the sources of a store do, which have compared what they read
        digest = digests[number % IMAGES].copy()
        digest.update(mark)
        item.image_sha256 = digest.hexdigest()
        yield item


@dataclass
class Pairs:
    """The pairs as a source in a store."""

    total: int
    side: int
    label = "bench"
    format = "twins"
    classes = CLASSES

    def count(self) -> int:
        return self.total

    def items(self, start_after: int | None = None) -> Iterator[tuple[int, DatasetItem]]:
        start = 0 if start_after is None else start_after + 1
        return enumerate(pairs(self.total, self.side, start), start)


def export_here(format_: str, count: int, side: int, folder: Path) -> None:
    """Runs one export in this process and prints its figures as JSON."""
    began, cpu = time.perf_counter(), time.process_time()
    options = ExportOptions.model_validate({"format": format_, "splits": {"train": 0.8, "val": 0.2}})
    (folder / "scratch").mkdir(parents=True)
    store = FolderStore(folder / "store", link_secret=bytes(16), public_url="http://localhost")
    location = ExportLocation(store, PREFIX)
    run_export(StoredMix([Pairs(count, side)]), options, ExportAbout(), location, scratch=folder / "scratch")
    figures = {
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(figures))


def export_apart(format_: str, count: int, side: int, folder: Path) -> dict[str, float]:
    """The figures of an export in a fresh process; ``folder`` is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    command = [
        sys.executable,
        __file__,
        "--child",
        format_,
        "--pairs",
        str(count),
        "--side",
        str(side),
        "--folder",
        str(folder),
    ]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def against_tar(count: int, side: int, folder: Path, rounds: int) -> dict[str, float]:
    """WebDataset against tar over the same files, alternating: medians of wall and CPU seconds, and their ratios."""
    loose = folder / "loose"
    export_apart("webdataset", count, side, folder / "set")
    for shard in sorted((folder / "set" / "store" / PREFIX / "files").glob("*.tar")):
        (loose / shard.stem).mkdir(parents=True)
        subprocess.run(["tar", "-xf", str(shard), "-C", str(loose / shard.stem)], check=True)
    ours, theirs = [], []
    for _ in range(rounds):
        shutil.rmtree(folder / "set", ignore_errors=True)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.perf_counter()
        subprocess.run(["tar", "-cf", str(folder / "plain.tar"), "-C", str(loose), "."], check=True)
        seconds = time.perf_counter() - began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        with open(folder / "plain.tar", "rb") as file:
            os.fsync(file.fileno())
        flushed = time.perf_counter() - began
        theirs.append((seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, flushed))
        (folder / "plain.tar").unlink()
        figures = export_apart("webdataset", count, side, folder / "set")
        ours.append((figures["seconds"], figures["cpu_seconds"]))
    shutil.rmtree(loose)
    wall, cpu = (statistics.median(column) for column in zip(*ours, strict=True))
    tar_wall, tar_cpu, tar_flushed = (statistics.median(column) for column in zip(*theirs, strict=True))
    return {
        "seconds": wall,
        "tar_seconds": tar_wall,
        "tar_flushed_seconds": tar_flushed,
        "cpu_seconds": cpu,
        "tar_cpu_seconds": tar_cpu,
        "share": tar_wall / wall,
        "share_of_flushed": tar_flushed / wall,
    }


def main() -> None:
    """Prints the figures, which limits are met, and one line of JSON for machines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--side", type=int, default=64, help="pixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--formats", nargs="+", default=["coco", "webdataset"])
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder if not given")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        export_here(given.child, given.pairs, given.side, given.folder)
        return
    figures: dict[str, float] = {"pairs": given.pairs, "side_px": given.side}
    with tempfile.TemporaryDirectory(dir=given.folder) as temporary:
        folder = Path(temporary)
        print(f"{'':14}{'pairs':>9}{'pairs/s':>10}{'peak, MB':>10}{'growth':>8}")
        for format_ in given.formats:
            few = export_apart(format_, given.pairs // 10, given.side, folder / "set")
            all_ = export_apart(format_, given.pairs, given.side, folder / "set")
            growth = all_["peak_mb"] / few["peak_mb"]
            for count, found in ((given.pairs // 10, few), (given.pairs, all_)):
                shown = f"{growth:8.2f}" if found is all_ else ""
                print(f"{format_:14}{count:9}{count / found['seconds']:10.0f}{found['peak_mb']:10.0f}{shown}")
            figures |= {f"{format_}_peak_mb": round(all_["peak_mb"], 1), f"{format_}_growth": round(growth, 3)}
            figures[f"{format_}_pairs_a_s"] = round(given.pairs / all_["seconds"], 1)
        found = against_tar(given.pairs, given.side, folder, given.rounds)
    figures |= {f"webdataset_{name}": round(value, 3) for name, value in found.items()}
    print(
        f"webdataset {found['seconds']:.1f} s ({found['cpu_seconds']:.1f} s CPU), tar {found['tar_seconds']:.1f} s: "
        f"{found['share']:.2f} of tar; "
        f"tar flushed {found['tar_flushed_seconds']:.1f} s: {found['share_of_flushed']:.2f}"
    )
    met = {
        f"peak <= {PEAK_MB} MB": all(figures[f"{name}_peak_mb"] <= PEAK_MB for name in given.formats),
        f"growth <= {GROWTH}": all(figures[f"{name}_growth"] <= GROWTH for name in given.formats),
        f"webdataset >= {TAR_SHARE} of tar": found["share"] >= TAR_SHARE,
    }
    print("; ".join(f"{limit}: {'met' if holds else 'MISSED'}" for limit, holds in met.items()))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
