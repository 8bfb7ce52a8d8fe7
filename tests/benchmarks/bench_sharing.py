"""Time of a job of one twin while a bulk job runs, against the same alone, through the whole stack.

    python tests/benchmarks/bench_sharing.py [--model cosimgen-dubai] [--bulk 500] [--singles 8] [--steps 20]

API, broker, worker and store are real. The bulk job and the jobs of one ask for the same model and steps. Measurements
alone and beside the bulk job alternate, so that other load on the machine affects both. Printed as JSON:
  one_alone_s, one_beside_s  seconds from POST to the stored twin, medians
  ratio                      the second over the first
  work_kept                  twins/s of bulk and singles together while both run, over the bulk job's alone; at 1 the
                             bulk job loses no more than the singles get
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from service.local.stack import EmbeddedStack


class Api:
    """The API calls that the benchmark needs."""

    def __init__(self, url: str, model: str, steps: int) -> None:
        self._client = httpx.Client(base_url=url, timeout=120.0)
        self._asked = {"model": model, "classes": ["water", "vegetation"], "steps": steps}

    def start(self, count: int, **more: Any) -> str:
        answer = self._client.post("/generate", json=self._asked | {"count": count} | more)
        answer.raise_for_status()
        return str(answer.json()["id"])

    def one(self, **more: Any) -> float:
        """Seconds from the request to the stored twin."""
        began = time.perf_counter()
        answer = self._client.post("/generate", json=self._asked | {"count": 1} | more, headers={"Prefer": "wait=60"})
        answer.raise_for_status()
        assert answer.status_code == 200, answer.text
        assert answer.json()["state"] == "succeeded", answer.text
        return time.perf_counter() - began

    def done(self, job: str) -> float:
        """Twins of the job that are stored."""
        found = self._client.get(f"/jobs/{job}").json()
        assert found["state"] in ("queued", "running"), f"the bulk job is {found['state']}: give it more twins"
        return float(found["done"])

    def cancel(self, job: str) -> None:
        self._client.delete(f"/jobs/{job}").raise_for_status()


def rate(api: Api, job: str, seconds: float, singles: int = 0, **more: Any) -> tuple[float, list[float]]:
    """Twins/s of the bulk job and of singles sent one after another, and the seconds of each single."""
    before, began, times = api.done(job), time.perf_counter(), []
    while time.perf_counter() - began < seconds or len(times) < singles:
        if singles:
            times.append(api.one(**more))
        else:
            time.sleep(0.2)
    return (api.done(job) - before + len(times)) / (time.perf_counter() - began), times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cosimgen-dubai")
    parser.add_argument("--bulk", type=int, default=500)
    parser.add_argument("--singles", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--window-s", type=float, default=20.0, help="seconds over which the bulk job's rate is taken")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, EmbeddedStack(Path(folder) / "data", port=0, grace_s=0.5) as stack:
        api = Api(stack.url, options.model, options.steps)
        api.one()
        alone = [api.one() for _ in range(options.singles)]
        bulk = api.start(options.bulk)
        while api.done(bulk) == 0:
            time.sleep(0.2)
        found: dict[str, float] = {"one_alone_s": statistics.median(alone)}
        for kind in ("normal", "interactive"):
            by_itself, _ = rate(api, bulk, options.window_s)
            together, beside = rate(api, bulk, options.window_s, options.singles, priority=kind)
            found |= {
                f"{kind}_one_beside_s": statistics.median(beside),
                f"{kind}_ratio": statistics.median(beside) / found["one_alone_s"],
                f"{kind}_work_kept": together / by_itself,
            }
            print(f"{kind}: {found[f'{kind}_ratio']:.2f} x", file=sys.stderr)
        api.cancel(bulk)
    print(
        json.dumps(
            {"model": options.model, "steps": options.steps} | {k: round(v, 3) for k, v in found.items()}, indent=2
        )
    )


if __name__ == "__main__":
    main()
