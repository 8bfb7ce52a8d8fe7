"""First byte, rate and API memory of a job's archive, for few twins and for many.

    python tests/benchmarks/bench_archive.py [--few 100] [--many 50000] [--side 16] [--rounds 5]

Two jobs of each layout are in a folder store; their records and images (a few images of noise under many indices) are
written straight to its folder without waiting for the disk. An API process of its own serves each layout, first the
small job, then the large one; one client reads the archive and discards it. "first byte" is from sending the request to
the first byte of the body, "first image" to the header of the first image in it, both medians; "peak" is the peak
resident memory of the API process, after the small job and after the large one. The rate is compared with a loop that
reads the same PNG files one by one and puts them into a zip with Python's ``zipfile``, all in one process and without a
network, once before and once after. Limits: first byte < 0.5 s, growth of the peak < 32 MB.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import statistics
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

from model_store.card import SamplerConvention
from service.jobs.parameters import Layout
from service.jobs.repository import JobRepository
from service.jobs.sample_item import FileLocation, MadeTwin
from service.jobs.shards import pack_shard
from service.jobs.spec import JobSpec
from service.kit.ids import new_job_id
from service.kit.png import encode_image, encode_mask
from service.kit.seeds import sample_seed
from service.local.children import ChildProcess, ChildProcesses
from service.local.stack import listen_on
from service.settings import Settings
from service.store import keys
from service.store.opening import open_store
from tests.benchmarks.records import CLASSES, record_of

KINDS = 64
FIRST_BYTE_S, GROWTH_MB = 0.5, 32.0
_PIECE = 1 << 18


def spec_of(count: int, layout: Layout) -> JobSpec:
    """An accepted job of ``count`` twins."""
    now = datetime.now(UTC)
    return JobSpec(
        job=new_job_id(now), created_at=now, model="cosimgen-dubai@1.2.0", weights_sha256="0" * 64, system="cosimgen",
        classes=("water",), count=count, seed=7, steps=50, guidance_scale=1.5, eta=0.7, size=256,
        sampler=SamplerConvention(prediction_type="v_prediction"), chunk_size=8, layout=layout, request={},
    )  # fmt: skip


def write_job(root: Path, spec: JobSpec, images: list[bytes], masks: list[bytes]) -> None:
    """Writes all objects that workers store for a job before its end, straight into the store's folder."""

    def write(key: str, data: bytes) -> None:
        path = root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    for chunk in range(spec.chunks):
        twins = [
            MadeTwin(
                index, sample_seed(spec.seed, index), images[index % KINDS], masks[index % KINDS], CLASSES, 0.99, 0.97
            )
            for index in spec.chunk_range(chunk)
        ]
        shard = pack_shard(spec, chunk, twins) if spec.layout == "shards" else None
        if shard is None:
            items = []
            for twin in twins:
                image = keys.job_image(spec.job, twin.index, twin.sha256["image"])
                mask = keys.job_mask(spec.job, twin.index, twin.mask_sha256 or "")
                write(image, twin.image)
                write(mask, twin.mask or b"")
                items.append(twin.at(FileLocation(image), FileLocation(mask)))
            made = record_of(spec, chunk, items)
        else:
            write(shard.key, shard.data)
            made = record_of(spec, chunk, shard.items, shard.recorded)
        write(keys.job_chunk(spec.job, chunk), made.model_dump_json().encode())


@dataclass
class Api:
    """An API process and its port."""

    child: ChildProcess
    port: int

    def peak_mb(self) -> float:
        """Peak resident memory of the process."""
        status = Path(f"/proc/{self.child.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1000

    def read_archive(self, job: str, *, whole: bool = True) -> dict[str, float]:
        """Seconds to the first byte, to the first image and in all, and the bytes received."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        began = time.perf_counter()
        connection.request("GET", f"/jobs/{job}/archive")
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        head = answer.read1(_PIECE)
        found = {"first_byte_s": time.perf_counter() - began}
        while b"images/00000000.png" not in head:
            head += answer.read1(_PIECE)
        found["first_image_s"] = time.perf_counter() - began
        size = len(head)
        while whole and (piece := answer.read1(_PIECE)):
            size += len(piece)
        found |= {"seconds": time.perf_counter() - began, "bytes": size}
        connection.close()
        return found


@contextmanager
def api(settings: Settings) -> Iterator[Api]:
    """The API in a process of its own, once it answers."""
    environment = {"TWINSET_DATA_DIR": str(settings.data_dir), "TWINSET_BROKER_URL": settings.broker_url}
    with ExitStack() as stack:
        family = stack.enter_context(ChildProcesses(settings.data_dir / "logs"))
        with listen_on("127.0.0.1", 0) as listener:
            fd, port = listener.fileno(), listener.getsockname()[1]
            child = family.start(
                "api", "service.cli", ["serve", "--fd", str(fd)], environment=environment, pass_fds=[fd]
            )
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
        yield Api(child, port)


def zipped_twins_a_s(root: Path, spec: JobSpec) -> float:
    """Twins a second that ``zipfile`` packs from the PNG files of a job in the layout ``objects``."""
    began = time.perf_counter()
    with zipfile.ZipFile(_Nowhere(), "w", zipfile.ZIP_STORED) as archive:
        for kind in ("images", "masks"):
            for path in sorted((root / keys.job_prefix(spec.job) / kind).iterdir()):
                archive.writestr(f"{kind}/{path.name}", path.read_bytes())
    return spec.count / (time.perf_counter() - began)


class _Nowhere(io.RawIOBase):
    """A file that discards what is written to it."""

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        return memoryview(data).nbytes  # type: ignore[arg-type]


def main() -> None:
    """Prints the figures, which limits are met, and one line of JSON for machines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--few", type=int, default=100)
    parser.add_argument("--many", type=int, default=50_000)
    parser.add_argument("--side", type=int, default=16, help="pixels")
    parser.add_argument(
        "--rounds", type=int, default=5, help="requests that the times to the first byte are medians of"
    )
    options = parser.parse_args()
    random = np.random.default_rng(0)
    images = [
        encode_image(random.integers(0, 256, (options.side, options.side, 3)).astype(np.uint8), {"kind": kind})
        for kind in range(KINDS)
    ]
    colours = [(0, 0, 0), (0, 0, 255)]
    masks = [
        encode_mask(random.integers(0, 2, (options.side, options.side)).astype(np.uint8), colours, {"kind": kind})
        for kind in range(KINDS)
    ]
    figures: dict[str, float] = {"few": options.few, "many": options.many, "side_px": options.side}
    with tempfile.TemporaryDirectory() as temporary:
        settings = Settings(data_dir=Path(temporary), broker_url="redis://127.0.0.1:1/0")
        repository, root = JobRepository(open_store(settings)), settings.data_dir / "store"
        specs = {
            (layout, count): spec_of(count, layout)
            for layout in get_args(Layout)
            for count in (options.few, options.many)
        }
        for spec in specs.values():
            repository.write_spec(spec)
            write_job(root, spec, images, masks)
        print(
            f"{'':9}{'twins':>8}{'first byte':>12}{'first image':>15}{'twins/s':>10}{'MB/s':>8}"
            f"{'of zipfile':>12}{'peak, MB':>10}"
        )
        for layout in get_args(Layout):
            with api(settings) as served:
                for name in ("few", "many"):
                    spec = specs[layout, getattr(options, name)]
                    looks = [served.read_archive(spec.job, whole=False) for _ in range(options.rounds)]
                    before = zipped_twins_a_s(root, specs["objects", spec.count])
                    whole = served.read_archive(spec.job)
                    plain = statistics.mean((before, zipped_twins_a_s(root, specs["objects", spec.count])))
                    found = {
                        key: statistics.median(look[key] for look in looks) for key in ("first_byte_s", "first_image_s")
                    }
                    found |= {
                        "twins_a_s": spec.count / whole["seconds"],
                        "mb_a_s": whole["bytes"] / whole["seconds"] / 1e6,
                    }
                    found |= {"of_zipfile": found["twins_a_s"] / plain, "peak_mb": served.peak_mb()}
                    print(
                        f"{layout:9}{spec.count:8}{found['first_byte_s']:10.3f} s{found['first_image_s']:13.3f} s"
                        f"{found['twins_a_s']:10.0f}{found['mb_a_s']:8.1f}{found['of_zipfile']:12.2f}{found['peak_mb']:10.1f}",
                        flush=True,
                    )
                    figures |= {f"{layout}_{name}_{key}": round(value, 4) for key, value in found.items()}
    grown = {
        layout: figures[f"{layout}_many_peak_mb"] - figures[f"{layout}_few_peak_mb"] for layout in get_args(Layout)
    }
    ratio = figures["shards_many_twins_a_s"] / figures["objects_many_twins_a_s"]
    print(f"shards against objects: {ratio:.2f} x the twins/s of the large job")
    met = {
        f"first byte < {FIRST_BYTE_S} s": all(
            value < FIRST_BYTE_S for key, value in figures.items() if key.endswith("first_byte_s")
        ),
        f"peak grown by < {GROWTH_MB:.0f} MB": all(value < GROWTH_MB for value in grown.values()),
    }
    print("; ".join(f"{limit}: {'met' if holds else 'MISSED'}" for limit, holds in met.items()))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
