"""The folder of a stage, through which the worker and its child talk; gone when the stage is over.

order.json                what is to be trained                               written by the worker
parts/{role}/             results of earlier stages
begun.json                the run is built: iterations, parameters, notices    written by the child
progress.json             the iterations that are done
{run}/                    the run's folder, as `twinset train --out` has it: checkpoint.safetensors, log.jsonl,
                          samples/, and at the end model/, or the files of a part
result.json               the child is done; failure.json: it failed, and why
yield                     while it exists the child waits between iterations    made by the worker
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.trainings.options import SystemName

ORDER = "order.json"
BEGUN = "begun.json"
PROGRESS = "progress.json"
RESULT = "result.json"
FAILURE = "failure.json"
YIELD = "yield"
CHECKPOINT = "checkpoint.safetensors"
LOG = "log.jsonl"
_LOCK = "lock"


Message = TypeVar("Message", bound=BaseModel)


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StageOrder(_Message):
    """What the child trains. ``until`` is the iteration at which it ends at the latest."""

    run: str
    system: SystemName
    data: tuple[str, ...]
    options: dict[str, Any]
    parts: dict[str, Path]
    tenant: str
    name: str | None = None
    until: int | None = None
    evaluate: bool = False
    device: str = "auto"
    share: float = Field(1.0, gt=0, le=1, description="of the time that training takes while it has to yield")


class Begun(_Message):
    """What is known once the run is built."""

    iterations: int
    start: int
    parameters: int
    device: str
    machine: dict[str, str] = Field(default_factory=dict, description="its type: the device's name, versions, threads")
    notices: tuple[str, ...] = ()


class StageProgress(_Message):
    """The iterations that are done, and the seconds that this process has trained."""

    iteration: int
    seconds: float
    memory_bytes: int | None = Field(None, description="the most that was taken of the device's memory so far")


class StageResult(_Message):
    """The end of the child: the files of a part, or those of ``model/``, by their paths in the run's folder."""

    iterations: int
    files: tuple[str, ...]
    figures: dict[str, Any] = Field(default_factory=dict)


class Failure(_Message):
    """Why the child failed. ``invalid`` would be the same at every attempt, ``machine`` is of this machine's disk."""

    kind: Literal["invalid", "machine", "unknown"]
    reason: str


def write_message(path: Path, message: BaseModel) -> None:
    """Writes a message, whole or not at all."""
    fresh = path.with_name(f".{path.name}.tmp")
    fresh.write_text(message.model_dump_json(), encoding="utf-8")
    os.replace(fresh, path)


def read_message(path: Path, kind: type[Message]) -> Message | None:
    """The message, or None if it is not there."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


@contextmanager
def stage_folder(root: Path) -> Iterator[Path]:
    """A new folder below ``root``, removed at the end. Folders of workers that were killed are removed at the start."""
    root.mkdir(parents=True, exist_ok=True)
    remove_abandoned(root)
    folder = Path(tempfile.mkdtemp(prefix="stage-", dir=root))
    with (folder / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned(root: Path) -> None:
    """Removes the folders whose worker is gone."""
    for folder in root.glob("stage-*"):
        with suppress(OSError), (folder / _LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)


def checkpoint_iteration(path: Path) -> int:
    """The iteration in a checkpoint's header, which is read without torch. Raises ValueError for another file."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= 100_000_000:
            raise ValueError(f"{path} has no safetensors header")
        return int(json.loads(file.read(length))["__metadata__"]["iteration"])
