"""Seconds from ``twinset demo`` to the contact sheet, by part.

    python tests/benchmarks/bench_demo.py [--model cosimgen-dubai] [--count 8] [--rounds 1]

The command runs in a process of its own, as a user runs it. The times of its parts come from its files (the job's spec,
chunk records and summary, and the contact sheet) and from the process's end. The ratio to follow is the whole against
the sampling alone: the cost of starting and stopping a stack around it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

PARTS = (
    ("stack_s", "broker and API up, request accepted"),
    ("first_claim_s", "worker up, model loaded, first chunk claimed"),
    ("sampling_s", "twins sampled, decoded, stored"),
    ("sheet_s", "twins fetched, contact sheet drawn"),
    ("stop_s", "everything stopped"),
)


def measure(model: str, count: int, folder: Path) -> dict[str, float]:
    """Runs the demo once and returns the seconds of each part."""
    command = [
        sys.executable,
        "-m",
        "service.cli",
        "demo",
        "--model",
        model,
        "--count",
        str(count),
        "--seed",
        "1",
    ]
    began = time.time()
    subprocess.run([*command, "--out", str(folder)], check=True, stdout=subprocess.DEVNULL, env={**os.environ})
    ended = time.time()
    (job,) = (folder / "data" / "store" / "jobs").iterdir()
    records = [json.loads(path.read_text()) for path in sorted((job / "chunks").glob("*.json"))]
    accepted = moment(json.loads((job / "spec.json").read_text())["created_at"])
    claimed = min(moment(record["started_at"]) for record in records)
    made = moment(json.loads((job / "summary.json").read_text())["finished_at"])
    sheet = (folder / "contact_sheet.png").stat().st_mtime
    times = (began, accepted, claimed, made, sheet, ended)
    parts = {name: after - before for (name, _), before, after in zip(PARTS, times, times[1:], strict=False)}
    return {**parts, "to_sheet_s": sheet - began, "total_s": ended - began}


def moment(text: str) -> float:
    """An ISO 8601 moment as seconds since 1970."""
    return datetime.fromisoformat(text).timestamp()


def main() -> None:
    """Prints the medians of the parts, and one line of JSON for machines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cosimgen-dubai")
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        runs = [
            measure(options.model, options.count, Path(temporary) / str(number)) for number in range(options.rounds)
        ]
    median = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    for name, what in PARTS:
        print(f"{what:48}{median[name]:8.2f} s")
    print(f"{'from the command to the contact sheet':48}{median['to_sheet_s']:8.2f} s")
    ratio = median["to_sheet_s"] / median["sampling_s"]
    print(f"{'the same, against the sampling alone':48}{ratio:8.2f}")
    figures = {name: round(seconds, 3) for name, seconds in median.items()}
    print(
        json.dumps(
            {
                "model": options.model,
                "count": options.count,
                **figures,
                "sheet_over_sampling": round(ratio, 3),
            }
        )
    )


if __name__ == "__main__":
    main()
