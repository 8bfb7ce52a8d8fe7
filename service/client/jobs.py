"""Jobs: asked for, looked at, and fetched."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from service.client.client import BaseClient
from service.client.downloading import Download
from service.client.effects import Flow, Request, Together, Work
from service.client.errors import ApiProblem
from service.client.job_files import fetch_job
from service.client.masks import Mask, MaskFile, mask_files
from service.client.paging import Page
from service.client.requests import page_of, posted
from service.client.retries import parse, send
from service.client.runs import ResourceKind, Run, check_end, until_ended
from service.client.views import JobInfo, JobInfoPage, Sample, SampleInfoPage, UploadInfo
from service.client.wire import path
from service.kit.states import JobState

if TYPE_CHECKING:
    from service.client.torch_dataset import Transform, TwinDataset

JOBS = ResourceKind("job", JobInfo, lambda info: path("jobs", info.id), "Making", "twins")
_SAMPLES_A_PAGE = 500
_JOBS_A_PAGE = 100
_SENT_AT_ONCE = 8


class JobRun(Run[JobInfo]):
    """A job, of either client."""

    kind = JOBS

    @property
    def source(self) -> dict[str, str]:
        """What an export calls it."""
        return {"job": self.id}


def generate(
    client: BaseClient,
    *,
    model: str,
    prompt: str | None = None,
    classes: Sequence[str] | None = None,
    mask: Mask | Sequence[Mask] | None = None,
    count: int | None = None,
    seed: int | None = None,
    steps: int | None = None,
    guidance_scale: float | None = None,
    guidance_target: Literal["text", "mask", "joint"] | None = None,
    eta: float | None = None,
    size: int | None = None,
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
    """Asks for ``count`` twins of a model, by ``prompt``, ``classes`` or ``mask``, as its card allows; the job,
    accepted.

    ``mask`` is a path, a PNG's bytes, a Pillow image or an array of class indices, or a list of these, which take
    turns; ``count`` may then be left out, for one twin each. What is left out is the model's default, and ``seed``
    drawn: same seed and parameters, same twins. ``size`` is a side in pixels. An ``idempotency_key`` of your own makes
    a script that is started again find its job rather than make another. ``wait`` holds until the job has ended, as
    :meth:`Job.wait` does. Raises ApiProblem with every fault of the request, and InvalidRequest for what is no mask.
    """
    given = {
        "model": model, "prompt": prompt, "classes": None if classes is None else list(classes), "count": count, "seed": seed,
        "steps": steps, "guidance_scale": guidance_scale, "guidance_target": guidance_target, "eta": eta, "size": size,
        "mask_encoding": mask_encoding, "pairs": pairs, "priority": priority, "layout": layout, "name": name, "callback_url": callback_url,
    }  # fmt: skip
    body: dict[str, Any] = {member: value for member, value in given.items() if value is not None}
    names: list[str] = []
    if mask is not None:
        uploads = yield from _send_masks(client, mask)
        names = [name for name, _ in uploads]
        body["mask"] = [{"upload": upload} for _, upload in uploads]
    try:
        answer = yield from send(client.config, posted("/generate", body, idempotency_key))
    except ApiProblem as problem:
        raise _naming_masks(problem, names) from None
    info = parse(JobInfo, answer)
    if wait:
        info = yield from until_ended(client, JOBS, info, progress=progress, timeout=None)
        check_end(JOBS, info)
    return info


def job(client: BaseClient, id: str) -> Flow[JobInfo]:
    """The job of this id. Raises ApiProblem of status 404 if there is none of yours."""
    return parse(JobInfo, (yield from send(client.config, Request("GET", path("jobs", id)))))


def jobs_page(client: BaseClient, cursor: str | None, *, state: JobState | str | None = None) -> Flow[Page[JobInfo]]:
    """Your jobs, newest first; only those in ``state``, if it is given."""
    request = page_of("/jobs", cursor, _JOBS_A_PAGE, state=None if state is None else str(state))
    page = parse(JobInfoPage, (yield from send(client.config, request)))
    return Page(page.jobs, page.next_cursor)


def samples_page(run: Run[Any], cursor: str | None) -> Flow[Page[Sample]]:
    """The twins made so far, by index, with links to their pictures that hold for a while; samples given up have an
    ``error``."""
    page = parse(
        SampleInfoPage, (yield from send(run._client.config, page_of(f"{run.path}/samples", cursor, _SAMPLES_A_PAGE)))
    )
    return Page(page.samples, page.next_cursor)


def retry(run: JobRun) -> Flow[JobInfo]:
    """A new job with what is missing of this one, which must have ended: the same indices and seeds, so the same
    twins."""
    return parse(JobInfo, (yield from send(run._client.config, Request("POST", f"{run.path}/retry"))))


def download(run: JobRun, folder: str | Path, *, workers: int = 8, progress: bool = True) -> Flow[Download]:
    """Waits for the job's end and fetches its twins: ``images/``, ``masks/``, ``manifest.jsonl`` and the model's
    ``card.json``.

    Every picture is compared with its sha256, and is there whole or not at all. Called again, also after a kill, it
    fetches what is missing or was changed. The folder must be new, or an earlier download of this job. Raises
    FolderTaken, RunFailed for a job that made nothing, and DownloadFailed naming files that did not come as recorded,
    once the others are there.
    """
    run.info = yield from until_ended(run._client, JOBS, run.info, progress=progress, timeout=None)
    if not run.info.done:
        check_end(JOBS, run.info)
    pages = partial(samples_page, run)
    return (yield from fetch_job(run._client, run.info, folder, pages, workers=workers, progress=progress))


def torch_dataset(
    run: JobRun, folder: str | Path, *, transform: Transform | None = None, workers: int = 8, progress: bool = True
) -> Flow[TwinDataset]:
    """Downloads the twins to ``folder``, as :meth:`download` does, and opens them for PyTorch."""
    yield from download(run, folder, workers=workers, progress=progress)
    from service.client.torch_dataset import TwinDataset

    opened: TwinDataset = yield Work(lambda: TwinDataset(folder, transform=transform))
    return opened


def _send_masks(client: BaseClient, given: Mask | Sequence[Mask]) -> Flow[list[tuple[str, str]]]:
    """Sends the masks, equal ones once; the name and the upload of each, in order."""
    files = mask_files(given)
    named: list[tuple[str, str]] = []
    uploads: dict[str, str] = {}
    while batch := (yield Work(lambda: list(islice(files, _SENT_AT_ONCE)))):
        digests = [hashlib.sha256(file.data).hexdigest() for file in batch]
        fresh = {digest: file for digest, file in zip(digests, batch) if digest not in uploads}
        answered = yield Together([_send_mask(client, file) for file in fresh.values()], _SENT_AT_ONCE)
        uploads.update(zip(fresh, answered))
        named += [(file.name, uploads[digest]) for file, digest in zip(batch, digests)]
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


def _naming_masks(problem: ApiProblem, names: Sequence[str]) -> ApiProblem:
    """The problem of a request, with the mask's name before what is wrong with it: the server knows them by number."""
    faults, named = [], False
    for fault in problem.errors:
        _, _, number = str(fault.get("pointer", "")).partition("/mask/")
        known = number.isdecimal() and int(number) < len(names)
        named |= known
        faults.append({**fault, "detail": f"{names[int(number)]}: {fault.get('detail', '')}"} if known else fault)
    if not named:
        return problem
    detail = "; ".join(str(fault.get("detail", "")) for fault in faults)
    return ApiProblem({**problem.document, "detail": detail, "errors": faults}, problem.status)
