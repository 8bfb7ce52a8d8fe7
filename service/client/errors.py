"""What can go wrong between a script and a Twinset server.

TwinsetError
├── ApiProblem               the server refused, and says why: status, title, detail, errors
├── UnexpectedAnswer         what answered is not the API, or not of this client's kind
├── RunFailed                a job, an upload, an export or an augmentation that ended without what was wanted of it
├── StillRunning             (also TimeoutError) it has not ended in the time it was given; it goes on
├── DownloadFailed           files that did not come as they were recorded
├── DownloadRefused          what the server offered as a file must not be written here
├── FolderTaken              the folder holds something else
├── NotReady
│   └── ServerUnreachable    nobody answers
├── InvalidRequest           a mask, an archive or a setting that is seen to be wrong before anything is sent
└── MissingExtra
    └── TorchMissing         (also ImportError) datasets for PyTorch need PyTorch
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from service.errors import MissingExtra, NotReady, TwinsetError

_SHOWN_FAULTS = 20
_WITH_A_KEY = "Give the key as api_key=..., or in the environment as TWINSET_API_KEY."


class ApiProblem(TwinsetError):
    """An error that the server answered with (RFC 9457).

    ``status``, ``title`` and ``detail`` are the server's; ``type`` is the kind of error, ``/problems/unknown-model``
    say; ``errors`` lists each fault of an invalid request: its place by JSON ``pointer``, or a ``parameter``, and a
    ``detail``.
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
        for fault in self.errors[:_SHOWN_FAULTS]:
            where, what = fault.get("pointer") or fault.get("parameter") or "", str(fault.get("detail", ""))
            if what and what not in self.detail:
                lines.append(f"  {where}: {what}" if where else f"  {what}")
        if len(self.errors) > _SHOWN_FAULTS:
            lines.append(f"  and {len(self.errors) - _SHOWN_FAULTS} more: see .errors")
        if self.status == 401:
            lines.append(_WITH_A_KEY)
        return "\n".join(lines)

    def is_kind(self, slug: str) -> bool:
        """Whether the error is of this kind: ``unknown-job`` say, the last part of ``type``."""
        return self.type.rpartition("/")[2] == slug

    def problem(self) -> dict[str, Any]:
        """The server's own document."""
        return {**self.document, "title": self.title, "status": self.status, "detail": self.detail}


class ServerUnreachable(NotReady):
    """Nobody answers at the server's address, or at that of a link."""

    slug = "server-unreachable"
    title = "No server answers"


class UnexpectedAnswer(TwinsetError):
    """An answer that the API does not give: another program's, or that of a server of another version."""

    slug = "unexpected-answer"
    title = "The answer is not one that is understood"


class RunFailed(TwinsetError):
    """A run that ended without what was wanted of it; ``state`` says how, ``reason`` why."""

    slug = "run-failed"
    title = "The run has failed"

    def __init__(self, detail: str, *, state: str = "failed", reason: str | None = None) -> None:
        super().__init__(detail, state=state, reason=reason)
        self.state = state
        self.reason = reason


class StillRunning(TwinsetError, TimeoutError):
    """A run that has not ended in the time it was given. It goes on; waiting again is fine."""

    slug = "still-running"
    title = "The run has not ended yet"


class DownloadFailed(TwinsetError):
    """Files that did not come as they were recorded; ``files`` names each with its reason. The others are in the
    folder."""

    slug = "download-failed"
    title = "Some files could not be fetched"

    def __init__(self, detail: str, *, files: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(detail, files=[list(entry) for entry in files])
        self.files = tuple(files)


class DownloadRefused(TwinsetError):
    """A file that must not be written: its name leads out of the folder, it is a link, or more than was announced."""

    slug = "download-refused"
    title = "A file was not written"


class FolderTaken(TwinsetError):
    """A folder that holds something else than what is to be fetched into it."""

    slug = "folder-taken"
    title = "The folder holds something else"


class TorchMissing(MissingExtra, ImportError):
    """PyTorch is not installed."""

    slug = "missing-extra"
