"""Folders as ``twinset generate`` writes them, and real datasets for the same classes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.service.api.support import card
from tests.service.datasets.scenes import noise, png

CLASSES = ["building", "water", "vegetation", "unlabelled"]
"""Those of the card of the tests; the last one is its background."""


def twin_mask(number: int, size: int = 24) -> np.ndarray:
    """Ground with a block of water, one of vegetation whose size tells the number, a pixel to ignore."""
    labels = np.full((size, size), 3, dtype=np.uint8)
    labels[2:8, 3:11] = 1
    labels[12 : 14 + number % 6, 5:9] = 2
    labels[0, 0] = 255
    return labels


def twin_folder(
    folder: Path,
    job: str = "j1",
    count: int = 4,
    *,
    maskless: tuple[int, ...] = (),
    with_card: bool = True,
    **line: Any,
) -> Path:
    """``count`` twins of a job; those in ``maskless`` are images alone. ``line`` overrides members of the manifest's
    lines."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    lines = []
    for index in range(count):
        image, mask = (
            noise(int(hashlib.sha256(f"{job}{index}".encode()).hexdigest()[:8], 16), 24, 24),
            png(twin_mask(index)),
        )
        entry: dict[str, Any] = {"format": 1, "job": job, "index": index, "seed": 100 + index, "job_seed": 7}
        for kind, data in (("image", image), ("mask", mask)):
            entry[kind] = None
            if kind == "image" or index not in maskless:
                (folder / f"{kind}s" / f"{index:08d}.png").write_bytes(data)
                entry[kind] = {
                    "key": f"jobs/{job}/{kind}s/{index:08d}.png",
                    "sha256": hashlib.sha256(data).hexdigest(),
                    "bytes": len(data),
                }
        entry |= {
            "model": "aerial@1.0.0",
            "prompt": None,
            "classes": ["water"],
            "given_mask": None,
            "steps": 10,
            "guidance_scale": 2.0,
        }
        entry |= {"eta": 0.0, "size_px": 24, "confident_share": 0.5 + index / 100, "mean_confidence": 0.8, **line}
        lines.append(json.dumps(entry))
    (folder / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    if with_card:
        (folder / "card.json").write_text(json.dumps(card()))
    return folder


def real_folder(
    folder: Path, names: list[str], count: int = 3, *, order: list[int] | None = None, seed: int = 500
) -> Path:
    """A real dataset of ``folders`` whose masks are those of twins; index ``i`` of these is ``order[i]`` here."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    table = np.full(256, 255, dtype=np.uint8)
    table[: len(names)] = order or list(range(len(names)))
    for number in range(count):
        (folder / "images" / f"real{number}.png").write_bytes(noise(seed + number, 24, 24))
        (folder / "masks" / f"real{number}.png").write_bytes(png(table[twin_mask(number)]))
    listed = [{"index": index, "name": name} for index, name in enumerate(names)]
    about = {"name": "Surveyed tiles", "licence": "CC BY 4.0", "classes": listed}
    (folder / "dataset.json").write_text(json.dumps(about))
    (folder / "test.txt").write_text("real0\n")
    return folder
