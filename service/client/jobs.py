"""Jobs: generating twins, listing and reading jobs, downloading their twins."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from service.client.client import BaseClient
from service.client.downloading import Download
from service.client.effects import Call, Flow, Gather, Request, Sleep
from service.client.errors import ApiProblem, StillRunning
from service.client.job_files import fetch_job
from service.client.masks import Mask, MaskFile, instance_files, mask_files
from service.client.paging import Page
from service.client.requests import page_request, post_request
from service.client.retries import parse, send
from service.client.runs import ResourceKind, Run, raise_if_failed, wait_until_ended
from service.client.views import JobInfo, JobInfoPage, RepairInfo, Sample, SampleInfoPage, UploadInfo
from service.client.wire import path
from service.kit.states import JobState

if TYPE_CHECKING:
    from service.client.torch_dataset import Transform, TwinDataset

JOBS = ResourceKind("job", JobInfo, lambda info: path("jobs", info.id), "Generating", "twins")
_SAMPLES_PER_PAGE = 500
_JOBS_PER_PAGE = 100
_MAX_CONCURRENT_UPLOADS = 8
_REPAIR_POLL_S = 1.0


class BaseJob(Run[JobInfo]):
    """Base class of :class:`Job` and :class:`AsyncJob`."""

    kind = JOBS

    @property
    def source(self) -> dict[str, str]:
        """The job as a source of an export."""
        return {"job": self.id}


def generate(
    client: BaseClient,
    *,
    model: str,
    prompt: str | None = None,
    classes: Sequence[str] | None = None,
    mask: Mask | Sequence[Mask] | None = None,
    instances: Mask | Sequence[Mask | None] | None = None,
    count: int | None = None,
    seed: int | None = None,
    steps: int | None = None,
    guidance_scale: float | None = None,
    guidance_target: Literal["text", "mask", "joint"] | None = None,
    eta: float | None = None,
    size: int | str | None = None,
    fit: Literal["stretch", "crop", "canvas"] | None = None,
    canvas: Mapping[str, Any] | None = None,
    mask_encoding: Literal["auto", "index", "binary", "colours"] | None = None,
    pairs: bool | None = None,
    priority: Literal["normal", "interactive"] | None = None,
    layout: Literal["objects", "shards"] | None = None,
    name: str | None = None,
    callback_url: str | None = None,
    idempotency_key: str | None = None,
    wait: bool = False,
    progress: bool = True,
) -> Flow[JobInfo]:
    """Starts a job that generates ``count`` twins of a model, and returns it.

    The twins are described by a ``prompt``, by ``classes`` or by a ``mask``, as the model's card allows. Example::

        job = client.generate(model="cosimgen-dubai", classes=["water", "roads"], count=100, seed=7)
        job.wait().download("twins")

    ``mask``: a path, PNG bytes, a Pillow image, an array of class indices ``(H, W)``, or a list of these; without
    ``count``, one twin is made for each mask, and with it the masks are used in turn. ``instances``: the number of each
    pixel's object, one map for each mask or None, so that objects that touch stay apart. ``seed``: drawn if left out;
    the same seed and parameters give the same twins. ``steps``, ``guidance_scale``, ``guidance_target``, ``eta``: the
    sampler's settings, by default those of the card. ``size``: side of image and mask in pixels, or "854x480" with a
    ``fit``. ``fit``: for masks and sizes that are not square: "stretch", "crop" (the centre square), or "canvas" (as
    large as the mask, by overlapping windows; ``canvas={"overlap_px": 64}`` says how they lie); by default as the model
    was trained, if its card says so. ``pairs=True``: refuse a request whose twins would have no masks.
    ``priority="interactive"``: a small job that goes ahead of others. ``layout``: how the store holds the files.
    ``name``: your own name for the job. ``callback_url``: where a signed webhook is sent when it ends.
    ``idempotency_key``: calls with the same key return the same job, so that a restarted script finds its job.
    ``wait``: wait until the job has ended, as :meth:`Job.wait` does, with a bar if ``progress``.

    Raises ApiProblem with every fault of the request, and InvalidRequest for something that is not a mask.
    """
    given = {
        "model": model,
        "prompt": prompt,
        "classes": None if classes is None else list(classes),
        "count": count,
        "seed": seed,
        "steps": steps,
        "guidance_scale": guidance_scale,
        "guidance_target": guidance_target,
        "eta": eta,
        "size": size,
        "fit": fit,
        "canvas": None if canvas is None else dict(canvas),
        "mask_encoding": mask_encoding,
        "pairs": pairs,
        "priority": priority,
        "layout": layout,
        "name": name,
        "callback_url": callback_url,
    }
    body: dict[str, Any] = {member: value for member, value in given.items() if value is not None}
    names: dict[str, str] = {}
    for member, files in (("mask", mask), ("instances", instances)):
        if files is None:
            continue
        uploads = yield from _send_files(client, mask_files(files) if member == "mask" else instance_files(files))
        names |= {f"/{member}/{number}": sent[0] for number, sent in enumerate(uploads) if sent is not None}
        body[member] = [None if sent is None else {"upload": sent[1]} for sent in uploads]
    try:
        response = yield from send(client.config, post_request("/generate", body, idempotency_key))
    except ApiProblem as problem:
        raise _naming_masks(problem, names) from None
    info = parse(JobInfo, response)
    if wait:
        info = yield from wait_until_ended(client, JOBS, info, progress=progress, timeout=None)
        raise_if_failed(JOBS, info)
    return info


def job(client: BaseClient, id: str) -> Flow[JobInfo]:
    """Returns the job with this id. Raises ApiProblem (404) if you have none."""
    return parse(JobInfo, (yield from send(client.config, Request("GET", path("jobs", id)))))


def jobs_page(client: BaseClient, cursor: str | None, *, state: JobState | str | None = None) -> Flow[Page[JobInfo]]:
    """Iterates over your jobs, newest first; with ``state``, over those in that state. Example::

    for job in client.jobs(state="running"):
        print(job.id, job.done, job.total)
    """
    request = page_request("/jobs", cursor, _JOBS_PER_PAGE, state=None if state is None else str(state))
    page = parse(JobInfoPage, (yield from send(client.config, request)))
    return Page(page.jobs, page.next_cursor)


def samples_page(run: Run[Any], cursor: str | None) -> Flow[Page[Sample]]:
    """Iterates over the twins made so far, by index, with signed links; failed samples have an ``error``. Example::

    for sample in job.samples():
        print(sample.index, sample.seed, [found.name for found in sample.classes], sample.error)
    """
    page = parse(
        SampleInfoPage,
        (yield from send(run._client.config, page_request(f"{run.path}/samples", cursor, _SAMPLES_PER_PAGE))),
    )
    return Page(page.samples, page.next_cursor)


def retry(run: BaseJob) -> Flow[JobInfo]:
    """Starts a job that makes the missing twins of this one, which must have ended, with the same indices and seeds."""
    return parse(JobInfo, (yield from send(run._client.config, Request("POST", f"{run.path}/retry"))))


def repair(run: BaseJob, *, wait: bool = True, timeout: float | None = None) -> Flow[RepairInfo]:
    """Has the server check the job's stored twins, and make damaged and missing ones again; the job must have ended.

    Returns what was found and done; with ``wait=False`` at once, before it is done. Call it again then: it returns the
    same repair until it is done. Links, downloads and exports of the job work again afterwards. Example::

        found = job.repair()
        print(found.damaged, "damaged,", found.missing, "missing,", found.failed, "could not be made again")

    Raises ApiProblem (409) for a job that has not ended, and StillRunning (a TimeoutError) after ``timeout`` seconds;
    the repair then continues on the server.
    """
    config = run._client.config
    info = parse(RepairInfo, (yield from send(config, Request("POST", f"{run.path}/repair"))))
    deadline = None if timeout is None else config.clock() + timeout
    while wait and info.finished_at is None:
        if deadline is not None and config.clock() >= deadline:
            raise StillRunning(
                f"the repair of job {run.id} is not done after {timeout:g} s. It continues: call repair again"
            )
        yield Sleep(_REPAIR_POLL_S)
        info = parse(RepairInfo, (yield from send(config, Request("GET", f"{run.path}/repair"))))
    return info


def download(run: BaseJob, folder: str | Path, *, workers: int = 8, progress: bool = True) -> Flow[Download]:
    """Waits until the job has ended and downloads its twins to ``folder``.

    The folder then has ``images/``, ``masks/``, ``manifest.jsonl`` and the model's ``card.json``. Every file is
    compared with its sha256 and written whole or not at all; ``workers`` (1 to 64) files are fetched concurrently. A
    second call, also after a kill, fetches only what is missing or was changed. The folder must be new, or an earlier
    download of this job. Example::

        result = job.download("twins")
        print(result.fetched, "fetched,", result.unchanged, "already there")

    Raises FolderTaken; RunFailed for a job without any twin; DownloadFailed with the files that could not be fetched,
    once all others are there.
    """
    run.info = yield from wait_until_ended(run._client, JOBS, run.info, progress=progress, timeout=None)
    if not run.info.done:
        raise_if_failed(JOBS, run.info)
    pages = partial(samples_page, run)
    return (yield from fetch_job(run._client, run.info, folder, pages, workers=workers, progress=progress))


def torch_dataset(
    run: BaseJob, folder: str | Path, *, transform: Transform | None = None, workers: int = 8, progress: bool = True
) -> Flow[TwinDataset]:
    """Downloads the twins to ``folder``, as :meth:`download` does, and opens them as a PyTorch dataset.

    Items are ``(image, mask)``: float32 ``(3, H, W)`` in 0..1 and int64 ``(H, W)`` of class indices, 255 = ignore;
    ``transform(image, mask)`` replaces them by what it returns. Example::

        dataset = job.torch_dataset("twins")
        loader = torch.utils.data.DataLoader(dataset, batch_size=16, num_workers=4)

    Raises what :meth:`download` raises, and TorchMissing without PyTorch.
    """
    yield from download(run, folder, workers=workers, progress=progress)
    from service.client.torch_dataset import TwinDataset

    opened: TwinDataset = yield Call(lambda: TwinDataset(folder, transform=transform))
    return opened


def _send_files(client: BaseClient, files: Iterator[MaskFile | None]) -> Flow[list[tuple[str, str] | None]]:
    """Uploads the files, equal ones once; returns name and upload id of each, in order, None for None."""
    named: list[tuple[str, str] | None] = []
    uploads: dict[str, str] = {}
    while batch := (yield Call(lambda: list(islice(files, _MAX_CONCURRENT_UPLOADS)))):
        digests = [None if file is None else hashlib.sha256(file.data).hexdigest() for file in batch]
        given = [(digest, file) for digest, file in zip(digests, batch, strict=True) if digest and file]
        new = {digest: file for digest, file in given if digest not in uploads}
        uploaded = yield Gather([_send_mask(client, file) for file in new.values()], _MAX_CONCURRENT_UPLOADS)
        uploads.update(zip(new, uploaded, strict=True))
        named += [
            (file.name, uploads[digest]) if file and digest else None
            for digest, file in zip(digests, batch, strict=True)
        ]
    return named


def _send_mask(client: BaseClient, file: MaskFile) -> Flow[str]:
    request = Request("POST", "/uploads", content=file.data, headers={"Content-Type": "image/png"})
    try:
        return parse(UploadInfo, (yield from send(client.config, request))).upload
    except ApiProblem as problem:
        if problem.status != 422:
            raise
        raise ApiProblem(
            {**problem.document, "detail": f"{file.name}: {problem.detail}", "errors": None}, problem.status
        ) from None


def _naming_masks(problem: ApiProblem, names: Mapping[str, str]) -> ApiProblem:
    """The problem with the name of each file at fault put before its detail: the server knows them by number only.

    ``names`` are by JSON pointers.
    """
    faults, named = [], False
    for fault in problem.errors:
        name = names.get(str(fault.get("pointer", "")))
        named |= name is not None
        faults.append(fault if name is None else {**fault, "detail": f"{name}: {fault.get('detail', '')}"})
    if not named:
        return problem
    detail = "; ".join(str(fault.get("detail", "")) for fault in faults)
    return ApiProblem({**problem.document, "detail": detail, "errors": faults}, problem.status)
