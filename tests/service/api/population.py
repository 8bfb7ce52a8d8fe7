"""An API with something in it: a job in every state, uploads, signed links. The ids are fixed, so that they can be
examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from fastapi import FastAPI
from starlette.testclient import TestClient

from service.api.app import create_app
from service.broker.priority import Priority
from service.jobs.repository import JobRepository
from service.jobs.spec import JobSpec
from service.kit.run_kinds import RunKind, kind_of
from service.kit.tenants import DEFAULT_TENANT
from service.masks.uploads import upload_id
from service.registry.aliases import Aliases
from service.settings import Settings
from service.store import ObjectStore, keys, open_store, run_keys
from tests.service.api.support import (
    DictLiveState,
    NotingQueue,
    binary_card,
    card,
    finish,
    make_chunk,
    mask_card,
    register,
    settings_for,
)
from tests.service.masks.support import pillow_file, stripes
from tests.service.registry.small_models import add as add_model
from workers.bulk.execute import execute_run
from workers.bulk.handlers import handlers
from workers.bulk.worker import open_bulk_worker

MASK = pillow_file(stripes(64))
SPARE = pillow_file(stripes(32))
"""Another upload, which nothing needs."""
"""A mask of the four classes of ``tissue``."""
MODELS = ("aerial", "aerial@1.0.0", "tissue", "polyps")
OWN_MODEL = "lesions"
"""A model of the tenant, in two versions and with the alias `stable`."""
JOBS = {
    name: f"j7ybr17pesw6kn47{number:03d}"
    for number, name in enumerate(
        (
            "queued",
            "running",
            "cancelling",
            "succeeded",
            "partial",
            "cancelled",
            "masked",
            "unpaired",
            "told",
            "deleted",
            "sharded",
        )
    )
}
"""What each has come to, and its id."""
DATASET = "scenes"
RUNS = {
    kind: {
        name: f"{kind[0]}7ybr17pesw6kn47{number:03d}"
        for number, name in enumerate(("queued", "succeeded", "cancelled", "deleted"))
    }
    for kind in ("exports", "augmentations", "trainings")
}
"""The same of exports, augmentation sets and trainings. Nobody makes the jobs of a set, or trains: none succeeds."""
_ASKED: dict[str, dict[str, Any]] = {
    "masked": {"model": "tissue", "classes": None, "mask": "upload", "name": "with a mask"},
    "unpaired": {"model": "tissue", "classes": None, "prompt": "glands"},
    "told": {"callback_url": "https://receiver.example/hook"},
    "sharded": {"layout": "shards"},
}


@dataclass
class PromptQueue(NotingQueue):
    """Notes what it is sent; jobs of one twin it makes on the spot, so that there are requests whose job has ended."""

    repository: JobRepository

    def __post_init__(self) -> None:
        super().__init__()

    def send_chunk(self, job: str, chunk: int, priority: Priority = "normal", tenant: str = "default") -> None:
        super().send_chunk(job, chunk, priority, tenant)
        spec = self.repository.read_spec(job)
        if spec.count == 1:
            finish(self.repository, spec)


@dataclass(frozen=True)
class Link:
    """A signed link to an object or to a picture in a shard, taken apart, and the ETag of what it leads to."""

    path: Mapping[str, str]
    query: Mapping[str, str]
    etag: str


@dataclass
class Population:
    """The API, its store and what is in it. ``upload`` is the id of :data:`MASK`; ``links`` are those of an
    operation."""

    settings: Settings
    app: FastAPI
    store: ObjectStore
    repository: JobRepository
    upload: str
    links: Mapping[str, tuple[Link, ...]]
    dataset: str = ""
    _keys: frozenset[str] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        self._keys = frozenset(info.key for info in self.store.list(""))

    def restore(self, job: str) -> None:
        """Takes back what a cancel, a deletion or a retry of one of :data:`JOBS`, or a run, has added to it."""
        self.store.put(keys.upload(DEFAULT_TENANT, upload_id(SPARE)), SPARE)
        prefixes: tuple[str, ...] = ()
        if job in JOBS.values():
            prefixes = (keys.job_prefix(job), keys.deletion(job), keys.pending_repair(job))
        elif kind_of(job) is not None:
            prefixes = (run_keys.run_prefix(job), run_keys.deleting_run(job))
        for prefix in prefixes:
            for key in [info.key for info in self.store.list(prefix)]:
                if key not in self._keys:
                    self.store.delete(key)


def populate(folder: Path, **changes: Any) -> Population:
    """An API over a folder store in ``folder``, whose jobs are of 4 twins and whose requests may ask for 8."""
    settings = settings_for(folder, max_count=8, max_wait_s=0.05, **changes)
    store = open_store(settings)
    register(store, card(), mask_card(), binary_card())
    repository = JobRepository(store)
    app = create_app(settings, store=store, queue=PromptQueue(repository), live_state=DictLiveState())
    # Not in a with block: nothing is started that a user of the app would have to share its event loop with.
    client = TestClient(app)
    upload = client.post("/uploads", content=MASK, headers={"Content-Type": "image/png"}).json()["upload"]
    client.post("/uploads", content=SPARE, headers={"Content-Type": "image/png"})
    for name, job in JOBS.items():
        asked = {"model": "aerial", "classes": ["water"], "count": 4, **_ASKED.get(name, {})}
        if asked.get("mask"):
            asked["mask"] = {"upload": upload}
        body = {member: value for member, value in asked.items() if value is not None}
        accepted = repository.read_spec(client.post("/generate", json=body).json()["id"])
        _move(store, accepted, job)
        _bring_about(name, repository, repository.read_spec(job), client)
    for version in ("1.0.0", "1.1.0"):
        add_model(store, folder, OWN_MODEL, version, version.encode(), tenant=DEFAULT_TENANT)
    Aliases(store, DEFAULT_TENANT).move(OWN_MODEL, "stable", "1.0.0", why=None, by=None)
    links = {}
    for operation, name in (("GET /objects/{key}", "succeeded"), ("GET /twins/{job}/{index}/{kind}.png", "sharded")):
        samples = client.get(f"/jobs/{JOBS[name]}/samples").json()["samples"]
        links[operation] = tuple(
            _link(store, sample[picture]["url"]) for sample in samples for picture in ("image", "mask")
        )
    dataset = _add_runs(client, settings, store)
    return Population(settings, app, store, repository, upload, links, dataset)


def _add_runs(client: TestClient, settings: Settings, store: ObjectStore) -> str:
    """A dataset that has been taken in, and exports and augmentation sets of it; the dataset's run."""
    from tests.workers.bulk.conftest import dataset_tar, send

    worker = open_bulk_worker(settings, store=store)
    send(client, dataset_tar(3, names=("building", "water", "vegetation", "unlabelled")), DATASET)
    dataset = next(worker.runs.runs("default", RunKind.DATASET))
    assert execute_run(worker, dataset, handlers()).value == "ended"
    bodies = {
        "exports": {"sources": [{"dataset": DATASET}], "format": "coco"},
        "augmentations": {"dataset": DATASET, "model": "tissue", "count": 3, "seed": 1},
        "trainings": {"system": "cosimgen", "dataset": DATASET, "name": "own-scenes"},
    }
    for kind, ids in RUNS.items():
        for name, run in ids.items():
            made = client.post(f"/{kind}", json=bodies[kind])
            assert made.status_code == 202, made.text
            _move_run(store, made.json()["id"], run)
            spec = worker.runs.read_spec(run)
            if name == "succeeded" and kind == "exports":
                execute_run(worker, run, handlers())
            elif name == "cancelled":
                worker.runs.cancel(spec)
            elif name == "deleted":
                worker.runs.delete(spec)
    worker.close()
    return dataset


def _move_run(store: ObjectStore, run: str, to: str) -> None:
    """Gives a run that has only been accepted the id ``to``."""
    for key in [info.key for info in store.list("") if run in info.key]:
        store.put(key.replace(run, to), store.get(key).replace(run.encode(), to.encode()))
        store.delete(key)


def _move(store: ObjectStore, spec: JobSpec, job: str) -> None:
    """Gives a job that has only been accepted the id ``job``."""
    for key in [info.key for info in store.list(keys.job_prefix(spec.job))]:
        if key != keys.job_spec(spec.job):
            store.put(key.replace(spec.job, job), store.get(key))
        store.delete(key)
    store.put(keys.job_spec(job), spec.model_copy(update={"job": job}).model_dump_json().encode())


def _bring_about(name: str, repository: JobRepository, spec: JobSpec, client: TestClient) -> None:
    if name in ("running", "cancelling"):
        make_chunk(repository, spec, 0)
    if name in ("succeeded", "partial", "masked", "unpaired", "told", "deleted", "sharded"):
        finish(repository, spec, failed=(1,) if name == "partial" else (), with_masks=name != "unpaired")
    if name in ("cancelling", "cancelled"):
        assert client.post(f"/jobs/{spec.job}/cancel").status_code == (202 if name == "cancelling" else 200)
    if name == "deleted":
        assert client.delete(f"/jobs/{spec.job}").status_code == 204


def _link(store: ObjectStore, url: str) -> Link:
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    if parts.path.startswith("/twins/"):
        _, _, job, index, file = parts.path.split("/")
        return Link({"job": job, "index": index, "kind": file.removesuffix(".png")}, query, f'"{query["sha256"]}"')
    key = unquote(parts.path.removeprefix("/objects/"))
    info = store.head(key)
    assert info is not None
    return Link({"key": key}, query, f'"{info.etag}"')
