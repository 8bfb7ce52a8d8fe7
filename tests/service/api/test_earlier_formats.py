"""Tests of jobs of earlier versions, whose keys have no attempt: they are read, retried and swept like any other."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import zipfile
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from starlette.testclient import TestClient

from service.jobs.garbage import remove_strays
from service.jobs.repository import JobRepository
from service.jobs.sample_files import read_sample_file, sample_files_of
from service.jobs.spec import JobSpec
from service.store import keys
from service.store.base import ObjectStore
from tests.service.api.support import finish, mask_card, register
from tests.service.masks.support import pillow_file


def without_attempt(key: str) -> str:
    """The key that an earlier version would have given."""
    stem, _, suffix = key.rpartition(".")
    return f"{stem.rpartition('.')[0]}.{suffix}"


def rewrite(store: ObjectStore, spec: JobSpec) -> None:
    """Makes an ended job one of an earlier version: spec format 2, summary format 1, no attempt in any key."""
    repository = JobRepository(store)
    summary = repository.read_summary(spec.job)
    assert summary is not None
    moved = [spec.input_key(number) for number in range(len(spec.mask or ()))]
    moved.append(repository.manifest_key(spec.job, summary))
    for record in list(repository.chunks.iterate(spec.job)):
        moved += {file.key for item in record.items for file in sample_files_of(item)}
        text = record.model_dump_json()
        for item in record.items:
            for file in sample_files_of(item):
                text = text.replace(f'"{file.key}"', f'"{without_attempt(file.key)}"')
        store.put(keys.job_chunk(spec.job, record.chunk), text.encode())
    for key in dict.fromkeys(moved):
        store.put(without_attempt(key), store.get(key))
        store.delete(key)
    for key, format, members in ((keys.job_spec(spec.job), 2, ()), (keys.job_summary(spec.job), 1, ("manifest",))):
        value = json.loads(store.get(key)) | {"format": format}
        store.put(key, json.dumps({name: value[name] for name in value if name not in members}).encode())


@pytest.mark.parametrize("layout", ["objects", "shards"])
def test_a_job_without_attempts_in_its_keys_is_read_and_swept(
    client: TestClient, repository: JobRepository, store: ObjectStore, layout: str
) -> None:
    body = {"model": "aerial", "classes": ["water"], "count": 5, "layout": layout}
    job = client.post("/generate", json=body).json()["id"]
    finish(repository, repository.read_spec(job))
    rewrite(store, repository.read_spec(job))
    spec = repository.read_spec(job)
    assert spec.format == 2
    first = "shards/000000.tar" if layout == "shards" else "images/00000000.png"
    assert store.head(f"jobs/{job}/{first}") is not None
    for _, item in repository.chunks.items(spec):
        for file in sample_files_of(item):
            assert hashlib.sha256(read_sample_file(store, file)).hexdigest() == file.sha256
    for sample in client.get(f"/jobs/{job}/samples").json()["samples"]:
        url = sample["image"]["url"].partition("127.0.0.1:8000")[2]
        assert hashlib.sha256(client.get(url).content).hexdigest() == sample["image"]["sha256"]
    archive = zipfile.ZipFile(io.BytesIO(client.get(f"/jobs/{job}/archive").content))
    assert archive.testzip() is None
    summary = repository.read_summary(job)
    assert summary is not None
    assert (summary.format, summary.manifest) == (1, None)
    assert repository.manifest_key(job, summary) == f"jobs/{job}/manifest.jsonl"
    before = {info.key for info in store.list(f"jobs/{job}/")}
    store.put(keys.job_image(job, 2, "ab" * 32), b"of another attempt")
    later = datetime.now(UTC) + timedelta(days=2)
    assert remove_strays(repository, spec, summary, later, max_objects=100) == 1
    assert {info.key for info in store.list(f"jobs/{job}/")} == before | {keys.job_swept(job)}


def test_the_retry_of_a_job_without_attempts_copies_its_masks_under_keys_with_attempts(
    client: TestClient, repository: JobRepository, store: ObjectStore
) -> None:
    register(store, mask_card())
    masks = [{"png": base64.b64encode(pillow_file(np.full((64, 64), n, dtype=np.uint8))).decode()} for n in range(3)]
    job = client.post("/generate", json={"model": "tissue", "mask": masks}).json()["id"]
    finish(repository, repository.read_spec(job), failed=(1,))
    rewrite(store, repository.read_spec(job))
    spec = repository.read_spec(job)
    assert spec.input_key(1) == f"jobs/{job}/inputs/000001.png"
    retry = repository.read_spec(client.post(f"/jobs/{job}/retry").json()["id"])
    assert retry.format == 3
    assert spec.mask is not None
    assert retry.input_key(1) == keys.job_input(retry.job, 1, spec.mask[1].sha256)
    assert store.get(retry.input_key(1)) == store.get(spec.input_key(1))
