"""Errors of the client.

TwinsetError
├── ApiProblem               the server refused the request: status, title, detail, errors
├── UnexpectedAnswer         the response is not one of the API, or of another version of it
├── RunFailed                a job, dataset, export or augmentation failed or was cancelled
├── StillRunning             (also TimeoutError) it has not ended within the timeout, and continues on the server
├── DownloadFailed           some files could not be fetched as they were recorded
├── DownloadRefused          a file of the server is unsafe to write, or larger than announced
├── FolderTaken              the download folder holds something else
├── NotReady
│   └── ServerUnreachable    the server does not answer
├── InvalidRequest           an argument, mask or archive that is found invalid before anything is sent
├── InvalidDataset           a downloaded set that is incomplete or damaged
├── SettingsError            an invalid address, key, timeout or number of workers
└── MissingExtra
    └── TorchMissing         (also ImportError) datasets for PyTorch need PyTorch
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from service.errors import MissingExtra, NotReady, TwinsetError

_MAX_SHOWN_FAULTS = 20
_KEY_REMEDY = "Give the key as api_key=..., or in the environment as TWINSET_API_KEY."


class ApiProblem(TwinsetError):
    """The server refused a request (RFC 9457).

    ``status``, ``title`` and ``detail`` are the server's. ``type`` is the kind of error, such as
    ``/problems/unknown-model``; see :meth:`is_kind`. ``errors`` lists each fault of an invalid request: its place as a
    JSON ``pointer`` or a ``parameter``, and a ``detail``. Example::

        try:
            client.generate(model="cosimgen-dubai", classes=["watr"])
        except ApiProblem as problem:
            print(problem.status, problem.errors)
    """

    status: int  # type: ignore[misc]
    title: str  # type: ignore[misc]

    def __init__(self, document: Mapping[str, Any], status: int) -> None:
        super().__init__(str(document.get("detail") or document.get("title") or "the server gave no reason"))
        self.document = dict(document)
        self.status = status
        self.title = str(document.get("title") or f"The server answered {status}")
        self.type = str(document.get("type") or "about:blank")
        faults = document.get("errors")
        self.errors: list[dict[str, Any]] = (
            [fault for fault in faults if isinstance(fault, dict)] if isinstance(faults, list) else []
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.document, self.status)

    def __str__(self) -> str:
        lines = [self.detail]
        for fault in self.errors[:_MAX_SHOWN_FAULTS]:
            where, what = fault.get("pointer") or fault.get("parameter") or "", str(fault.get("detail", ""))
            if what and what not in self.detail:
                lines.append(f"  {where}: {what}" if where else f"  {what}")
        if len(self.errors) > _MAX_SHOWN_FAULTS:
            lines.append(f"  and {len(self.errors) - _MAX_SHOWN_FAULTS} more: see .errors")
        if self.status == 401:
            lines.append(_KEY_REMEDY)
        return "\n".join(lines)

    def is_kind(self, slug: str) -> bool:
        """Whether the last part of ``type`` is ``slug``, such as ``unknown-job``."""
        return self.type.rpartition("/")[2] == slug

    def problem(self) -> dict[str, Any]:
        """The server's problem document."""
        return {**self.document, "title": self.title, "status": self.status, "detail": self.detail}


class ServerUnreachable(NotReady):
    """The server, or the host of a link, does not answer."""

    slug = "server-unreachable"
    title = "The server does not answer"


class UnexpectedAnswer(TwinsetError):
    """The response is not one of the API: another program answered, or a server of another version."""

    slug = "unexpected-answer"
    title = "The response is not one of the API"


class RunFailed(TwinsetError):
    """A run that ended failed or cancelled: its ``state``, and its ``reason`` if there is one."""

    slug = "run-failed"
    title = "The run has failed"

    def __init__(self, detail: str, *, state: str = "failed", reason: str | None = None) -> None:
        super().__init__(detail, state=state, reason=reason)
        self.state = state
        self.reason = reason


class StillRunning(TwinsetError, TimeoutError):
    """A run has not ended within the timeout. It continues on the server, and ``wait`` may be called again."""

    slug = "still-running"
    title = "The run has not ended yet"


class DownloadFailed(TwinsetError):
    """Some files could not be fetched; ``files`` lists each path with its reason. All others are in the folder."""

    slug = "download-failed"
    title = "Some files could not be fetched"

    def __init__(self, detail: str, *, files: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(detail, files=[list(entry) for entry in files])
        self.files = tuple(files)


class DownloadRefused(TwinsetError):
    """A file that is unsafe to write: its name leads out of the folder, it is a link, or larger than announced."""

    slug = "download-refused"
    title = "A file was not written"


class FolderTaken(TwinsetError):
    """The download folder holds something else: other files, or the download of another run."""

    slug = "folder-taken"
    title = "The folder holds something else"


class TorchMissing(MissingExtra, ImportError):
    """PyTorch is not installed."""

    slug = "missing-extra"
