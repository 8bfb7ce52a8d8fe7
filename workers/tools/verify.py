"""Verification of a stored job: a random few of its twins are made again and compared bit by bit with their records.

A sample is a pure function of model version, spec and index, and its record says on which machine and build it was
made. So two questions can be answered: are the stored objects still the recorded ones, and does the same come out
again? If machine or build differ from the record's, a no to the second proves nothing. The store is not written to.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import IntEnum, StrEnum

import numpy as np
from torch import Tensor

from model_store.text import TextEncoderMissing
from service.errors import JobStateConflict, NotReady, ObjectDamaged, ObjectNotFound, RecordUnreadable, StoreError
from service.jobs.repository import JobRepository
from service.jobs.sample_files import (
    Kind,
    SampleFile,
    read_as_stored,
    read_sample_file,
    sample_files_of,
)
from service.jobs.spec import ChunkRecord, JobSpec, MadeOn, SampleRecord
from service.kit.image_files import open_image_file
from service.settings import Settings
from service.store.base import ObjectStore
from workers.engine import EngineStopped, SampleFailed
from workers.generation.inputs import InputDamaged
from workers.generation.reproduce import (
    Conditions,
    Difference,
    Remaker,
    differences,
)
from workers.models.files import Load

_MAX_CONCURRENCY = 64


@dataclass(frozen=True)
class Pick:
    """A finished twin and the record of its chunk."""

    record: ChunkRecord
    item: SampleRecord

    @property
    def made_on(self) -> MadeOn:
        return self.record.made_on(self.item)


@dataclass(frozen=True)
class Drawn:
    """The drawn twins in order of their index, and the number of failed samples that were drawn but left out.

    ``unreadable``: why records that were drawn from cannot be read.
    """

    spec: JobSpec
    picks: tuple[Pick, ...]
    failed: int
    unreadable: tuple[str, ...] = ()


def draw(repository: JobRepository, spec: JobSpec, count: int, seed: int) -> Drawn:
    """Draws ``count`` finished twins of the recorded chunks, or all if there are fewer; all are equally likely.

    Reads only the records of the drawn ones. Raises :class:`JobStateConflict` if the job has no finished twin.
    """
    chunks = [chunk for chunk, _ in repository.chunks.recorded(spec.job) if chunk < spec.chunks]
    records: dict[int, ChunkRecord | None] = {}
    unreadable: list[str] = []
    picks: list[Pick] = []
    failed: list[SampleRecord] = []
    for position in _shuffled(sum(len(spec.chunk_range(chunk)) for chunk in chunks), random.Random(seed)):
        if len(picks) == count:
            break
        chunk, offset = chunks[position // spec.chunk_size], position % spec.chunk_size
        if chunk not in records:
            try:
                records[chunk] = repository.chunks.read(spec.job, chunk)
            except RecordUnreadable as error:
                records[chunk] = None
                unreadable.append(error.detail)
        record = records[chunk]
        if record is None or offset >= len(record.items):
            continue
        item = record.items[offset]
        if item.error is None:
            picks.append(Pick(record, item))
        else:
            failed.append(item)
    if not picks and not unreadable:
        why = (
            f"all {len(failed)} recorded samples failed: {failed[0].error}"
            if failed
            else "none of its chunks is recorded yet"
        )
        raise JobStateConflict(f"job {spec.job} has no twins to verify: {why}")
    return Drawn(spec, tuple(sorted(picks, key=lambda pick: pick.item.index)), len(failed), tuple(unreadable))


def _shuffled(total: int, source: random.Random) -> Iterator[int]:
    """0 .. total-1 in random order: a Fisher-Yates shuffle over a sparse list, whose memory grows with what is read."""
    moved: dict[int, int] = {}
    for left in range(total, 0, -1):
        at = source.randrange(left)
        yield moved.get(at, at)
        moved[at] = moved.get(left - 1, left - 1)


class Stored(StrEnum):
    """The state of a stored file, by the record's sha256."""

    AS_RECORDED = "as recorded"
    DAMAGED = "damaged"
    MISSING = "missing"


@dataclass(frozen=True)
class Distance:
    """Distance of two images: largest and mean absolute difference of values (0..255), share of differing pixels."""

    largest: int
    mean: float
    share: float


@dataclass(frozen=True)
class FileFinding:
    """The findings about one file of a twin, stored at ``place``.

    ``remade`` says whether the file made again has the recorded sha256, None if it could not be made. If it has not:
    ``like_stored`` says whether it equals the stored file, ``distance`` how far apart they are, None if unreadable.
    """

    kind: Kind
    place: str
    stored: Stored
    remade: bool | None
    like_stored: bool = False
    distance: Distance | None = None


@dataclass(frozen=True)
class TwinFinding:
    """The findings about one twin. ``failure``: why it could not be made; ``input_lost``: its given mask is lost."""

    index: int
    files: tuple[FileFinding, ...]
    differences: tuple[Difference, ...]
    failure: str | None = None
    input_lost: bool = False

    @property
    def damaged(self) -> bool:
        """Whether the store has lost or damaged an object of the twin, which does not depend on this machine."""
        return self.input_lost or any(file.stored is not Stored.AS_RECORDED for file in self.files)

    @property
    def differs(self) -> bool:
        """Whether the twin that was made again differs from the record, or could not be made."""
        return self.failure is not None or not all(file.remade for file in self.files)


class VerifyVerdict(IntEnum):
    """The verdict over all findings. Its number is the command's exit code."""

    SAME = 0
    DIFFERENT = 1
    PROVES_NOTHING = 3


def verdict(findings: Sequence[TwinFinding]) -> VerifyVerdict:
    """DIFFERENT if an object is damaged, or a twin differs although everything that affects its bits is as recorded."""
    if any(finding.damaged or (finding.differs and not finding.differences) for finding in findings):
        return VerifyVerdict.DIFFERENT
    return VerifyVerdict.PROVES_NOTHING if any(finding.differs for finding in findings) else VerifyVerdict.SAME


def verify(
    drawn: Drawn,
    store: ObjectStore,
    settings: Settings,
    *,
    load: Load | None = None,
    on_step: Callable[[], None] | None = None,
) -> Iterator[TwinFinding]:
    """Makes the drawn twins again, each as its record says, and yields the findings about each.

    ``on_step`` is called from the engine's thread at each step of each sample. Raises the errors of :class:`Remaker`
    and of the store, and :class:`NotReady` if the device is lost.
    """
    groups: dict[Conditions, list[Pick]] = {}
    for pick in drawn.picks:
        groups.setdefault(Conditions.of(pick.made_on), []).append(pick)
    for conditions, picks in groups.items():
        remaker = Remaker(drawn.spec, store, settings, conditions, load)
        try:
            for first in range(0, len(picks), _MAX_CONCURRENCY):
                started = [
                    (pick, remaker.start(pick.item.index, on_step)) for pick in picks[first : first + _MAX_CONCURRENCY]
                ]
                for pick, latent in started:
                    yield _finding(store, remaker, pick, latent)
        finally:
            remaker.close()


def _finding(store: ObjectStore, remaker: Remaker, pick: Pick, latent: Future[Tensor]) -> TwinFinding:
    item = pick.item
    twin, failure, input_lost = None, None, False
    try:
        twin = remaker.finish(item.index, latent)
    except EngineStopped as error:
        raise NotReady(f"the device was lost before twin {item.index} was made again: {error}") from None
    except (InputDamaged, ObjectNotFound) as error:
        failure, input_lost = str(error), True
    except (StoreError, TextEncoderMissing):
        raise
    except SampleFailed as error:
        failure = str(error)
    except Exception as error:
        failure = f"{type(error).__name__}: {error}"
    remade = {} if twin is None else twin.files
    if twin is not None and (twin.mask is None) != (item.mask_key is None):
        failure = "it came out without a mask" if twin.mask is None else "it came out with a mask, and none is recorded"
    files = tuple(_compare(store, file, remade.get(file.kind)) for file in sample_files_of(item))
    return TwinFinding(item.index, files, differences(pick.made_on, remaker.model), failure, input_lost)


def _compare(store: ObjectStore, file: SampleFile, remade: bytes | None) -> FileFinding:
    stored, data = _look(store, file)
    kind, place = file.kind, file.place
    if remade is None or hashlib.sha256(remade).hexdigest() == file.sha256:
        return FileFinding(kind, place, stored, None if remade is None else True)
    return FileFinding(kind, place, stored, False, remade == data, None if data is None else distance(data, remade))


def _look(store: ObjectStore, file: SampleFile) -> tuple[Stored, bytes | None]:
    """The state of the stored file, and its bytes if they can be read."""
    try:
        return Stored.AS_RECORDED, read_sample_file(store, file)
    except ObjectNotFound:
        return Stored.MISSING, None
    except ObjectDamaged:
        try:
            return Stored.DAMAGED, read_as_stored(store, file)
        except ObjectDamaged:
            return Stored.DAMAGED, None  # S3 knows it to be damaged, and gives none of it


def distance(one: bytes, other: bytes) -> Distance | None:
    """Distance of two PNGs, both of colours or both of class indices; None if unreadable or of different shapes."""
    try:
        a, b = (np.asarray(open_image_file(data)).astype(np.int16) for data in (one, other))
    except Exception:  # whatever a broken file makes a decoder raise
        return None
    if a.shape != b.shape:
        return None
    apart = np.abs(a - b)
    differing = apart.any(axis=2) if apart.ndim == 3 else apart > 0
    return Distance(int(apart.max()), float(apart.mean()), float(differing.mean()))
