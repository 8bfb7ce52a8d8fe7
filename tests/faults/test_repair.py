"""Tests of a damaged store behind a real API and workers: links, archive and exports work again after a repair."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import httpx
import pytest

from tests.faults.checker import check_job, reference_of
from tests.faults.rig import OTHER_MAKE, Rig
from tests.stored_twins import image_key, mask_key, shard_key
from tests.waiting import until


@pytest.mark.parametrize("layout", ["objects", "shards"])
def test_a_damaged_job_of_another_make_works_again_after_its_repair(rig: Rig, layout: str) -> None:
    """The worker that repairs it is of another make than the one that made it, and gives the recorded bytes: it makes a
    twin as its record says."""
    maker = rig.worker(environment=OTHER_MAKE)
    _, url = rig.api()
    with httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
        body = {"model": "tiny", "classes": ["land"], "count": 6, "seed": 11, "steps": 4, "layout": layout}
        job = client.post("/generate", json=body).json()["id"]
        until(lambda: client.get(f"/jobs/{job}").json()["finished_at"])
        spec = rig.repository.read_spec(job)
        made = reference_of(rig.store, spec)
        samples = client.get(f"/jobs/{job}/samples").json()["samples"]
        maker.kill()
        root = Path(rig.folder / "store")
        if layout == "shards":
            path = root / shard_key(rig.store, job, 0)
            path.write_bytes(path.read_bytes()[:1500])
        else:
            (root / image_key(rig.store, job, 2)).write_bytes(b"bit rot")
            (root / mask_key(rig.store, job, 4)).unlink()
        assert client.get(samples[2]["image"]["url"]).status_code == 503
        with pytest.raises(httpx.TransportError):
            client.get(f"/jobs/{job}/archive")

        rig.worker()
        assert client.post(f"/jobs/{job}/repair").status_code == 202
        found = until(lambda: (view := client.get(f"/jobs/{job}/repair").json())["finished_at"] and view)
        assert (found["failed"], found["replaced"], found["failures"]) == (0, 0, [])
        assert found["restored"] == found["damaged"] + found["missing"] >= 2
        for sample in samples:
            for kind in ("image", "mask"):
                data = client.get(sample[kind]["url"]).content
                assert hashlib.sha256(data).hexdigest() == sample[kind]["sha256"], "links given before work again"
        archive = zipfile.ZipFile(io.BytesIO(client.get(f"/jobs/{job}/archive").content))
        assert archive.testzip() is None
        assert len(archive.namelist()) == 2 * 6 + 3
    findings = check_job(rig.store, spec, made)
    assert findings.clean, findings
