"""The objects of a job in the store: its spec, its chunk records, its summary.

All are frozen values, written as JSON. Their ``format`` number changes only with their meaning.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AwareDatetime, Field, model_validator

from model_store.card import InputName, SamplerConvention
from service.jobs.parameters import GenerationParameters
from service.jobs.sizes import sides_of
from service.kit.frozen import SHA256_PATTERN, _Frozen
from service.kit.ids import JOB_ID_PATTERN
from service.kit.seeds import SEED_MAX
from service.kit.states import JobState
from service.kit.tenants import DEFAULT_TENANT, TENANT_PATTERN
from service.masks.types import GivenInstances, GivenMask
from service.registry.references import model_key
from service.store import keys
from service.store.immutable import StoredObject
from service.webhooks.spec import Callback

Run = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]
"""A run of sample indices, from the first to the last, both in it."""


def runs_of(indices: Iterable[int]) -> tuple[Run, ...]:
    """The ascending indices as runs."""
    runs: list[Run] = []
    for index in indices:
        if runs and index == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], index)
        else:
            runs.append((index, index))
    return tuple(runs)


class StoredInput(NamedTuple):
    """A file given for a job, of mask ``number``: where it is kept, and its hash."""

    number: int
    key: str
    sha256: str


class JobSpec(GenerationParameters):
    """An accepted request, with everything decided. On one kind of machine, the same spec always gives the same bytes.

    Formats: 5 for jobs of a tenant's own model, and 4 for those whose twins are not the model's squares or have
    instances, neither of which older workers can make; 3 for others; and 2 for jobs whose given masks have keys without
    an attempt.
    """

    format: Literal[2, 3, 4, 5] = 3
    job: str = Field(pattern=JOB_ID_PATTERN)
    tenant: str = Field(DEFAULT_TENANT, pattern=TENANT_PATTERN)
    name: str | None = Field(None, description="the requester's own words for the job")
    created_at: AwareDatetime
    model_owner: str | None = Field(
        None, pattern=TENANT_PATTERN, description="the tenant whose model it is; None for one of all tenants"
    )
    weights_sha256: str = Field(pattern=SHA256_PATTERN)
    system: str
    sampler: SamplerConvention = Field(description="the card's convention, so that a manifest line stands alone")
    mask: tuple[GivenMask, ...] | None = Field(None, min_length=1)
    instances: tuple[GivenInstances | None, ...] | None = Field(None, min_length=1)
    retry_of: str | None = Field(
        None, pattern=JOB_ID_PATTERN, description="the job of which this one makes what is missing"
    )
    only: tuple[Run, ...] | None = Field(
        None, min_length=1, description="runs of the indices to make, in order; None for 0 to count - 1"
    )
    chunk_size: int = Field(ge=1)
    callback: Callback | None = None
    request: dict[str, Any] = Field(description="the request as given, its masks by the ids of their uploads")
    idempotency_key: str | None = None
    request_id: str | None = Field(None, description="the id of the request that made it")
    traceparent: str | None = Field(None, description="the trace of that request, if there was one")

    @model_validator(mode="after")
    def _consistent(self) -> JobSpec:
        if not self.inputs:
            raise ValueError("a spec has at least one of prompt, classes and mask")
        if "classes" in self.inputs and len(self.inputs) > 1:
            raise ValueError(f"a spec has {' and '.join(self.inputs)}; classes go alone")
        if (self.fit == "canvas") != (self.canvas is not None):
            raise ValueError(f"a canvas has windows, and nothing else has: fit is {self.fit}")
        if self.instances is not None and len(self.instances) != len(self.mask or ()):
            raise ValueError(f"{len(self.instances)} instance maps are given for {len(self.mask or ())} masks")
        if self.size is None and not (self.mask and all(given.width and given.height for given in self.mask)):
            raise ValueError("a spec without a size has masks that tell theirs")
        if any(first > last for first, last in self.only or ()) or any(
            a[1] >= b[0] for a, b in pairwise(self.only or ())
        ):
            raise ValueError("only lists runs of indices, (first, last), each after the one before it")
        if self.only is not None and self._ends[-1] != self.count:
            raise ValueError(f"only lists {self._ends[-1]} indices, and count is {self.count}")
        if self.chunks > 10**6:
            raise ValueError(f"{self.chunks} chunks are more than the 1000000 that chunk keys can number")
        return self

    @property
    def parameters(self) -> GenerationParameters:
        """The job's generation parameters alone."""
        return GenerationParameters.model_construct(
            **{name: getattr(self, name) for name in GenerationParameters.model_fields}
        )

    @property
    def model_key(self) -> str:
        """The key of its model, which names it for any tenant."""
        return model_key(self.model_owner, self.model.rpartition(":")[2])

    @property
    def inputs(self) -> tuple[InputName, ...]:
        """The inputs that the request gave, by the card's names."""
        given: dict[InputName, object] = {"prompt": self.prompt, "classes": self.classes, "mask": self.mask}
        return tuple(name for name, value in given.items() if value is not None)

    def sides(self, index: int) -> tuple[int, int]:
        """(width, height) in pixels of twin ``index``."""
        if self.size is not None:
            return sides_of(self.size)
        number = self.mask_number(index)
        assert self.mask is not None
        assert number is not None
        given = self.mask[number]
        assert given.width is not None
        assert given.height is not None
        return given.width, given.height

    def mask_number(self, index: int) -> int | None:
        """The number of the given mask that sample ``index`` follows; None if no masks were given."""
        return None if self.mask is None else index % len(self.mask)

    def input_key(self, number: int) -> str:
        """The key of given mask ``number``. Raises IndexError if the job has no such mask."""
        given = (self.mask or ())[number]
        return keys.job_input(self.job, number, given.sha256 if self.format > 2 else None)

    def instances_of(self, number: int | None) -> GivenInstances | None:
        """The instance map of given mask ``number``, if it has one."""
        return None if self.instances is None or number is None else self.instances[number]

    def instances_key(self, number: int) -> str:
        """The key of the instance map of given mask ``number``. Raises IndexError if it has none."""
        given = self.instances_of(number)
        if given is None:
            raise IndexError(f"mask {number} of job {self.job} has no instance map")
        return keys.job_input_instances(self.job, number, given.sha256)

    @property
    def given_files(self) -> Iterator[StoredInput]:
        """The job's given files: each mask, then its instance map."""
        for number, mask in enumerate(self.mask or ()):
            yield StoredInput(number, self.input_key(number), mask.sha256)
            if (instances := self.instances_of(number)) is not None:
                yield StoredInput(number, self.instances_key(number), instances.sha256)

    @property
    def chunks(self) -> int:
        """How many chunks the job has."""
        return -(-self.count // self.chunk_size)

    def chunk_range(self, chunk: int) -> Sequence[int]:
        """The sample indices of chunk ``chunk`` (0 .. chunks-1), in order. Raises IndexError outside of that."""
        if not 0 <= chunk < self.chunks:
            raise IndexError(f"chunk {chunk} of job {self.job} does not exist; it has chunks 0 to {self.chunks - 1}")
        positions = range(chunk * self.chunk_size, min(self.count, (chunk + 1) * self.chunk_size))
        return positions if self.only is None else [self._index_at(position) for position in positions]

    def chunk_after(self, index: int) -> int:
        """The first chunk that holds an index above ``index``; ``chunks``, or one above, where none does."""
        if self.only is None:
            return (index + 1) // self.chunk_size
        # indices up to ``index``: all of the runs that begin no later, less what of the last one is above it
        run = bisect_right(self.only, index, key=lambda run: run[0])
        up_to = self._ends[run - 1] - max(0, self.only[run - 1][1] - index) if run else 0
        return up_to // self.chunk_size

    @cached_property
    def _ends(self) -> list[int]:
        """For each run of ``only``, how many indices there are up to its end."""
        return list(accumulate(last - first + 1 for first, last in self.only or ()))

    def _index_at(self, position: int) -> int:
        assert self.only is not None
        run = bisect_right(self._ends, position)
        return self.only[run][1] - (self._ends[run] - 1 - position)


class ItemClass(_Frozen):
    """A class found in a made mask, and its share of the mask's pixels (0..1)."""

    name: str
    index: int = Field(ge=0, le=254)
    share: float = Field(ge=0.0, le=1.0)


class MadeOn(_Frozen):
    """What decides a twin's bits besides its model and spec: the machine, and how the engine ran on it."""

    batch_shape: tuple[int, ...] = Field(description="canonical batch shape of the engine; part of what fixes the bits")
    shapes: Literal["fixed", "floating"] = Field(
        "fixed", description="floating: batch_shape is the largest, and bits depend on the samples in a batch"
    )
    dtype: str
    device: str
    build: dict[str, str] = Field(description="versions of what made it: twinset, torch, ...")


class Remade(MadeOn):
    """How a twin was made again in a repair, where the bytes are other than those recorded at first."""

    repair: int = Field(ge=1, description="number of the job's repair")
    worker: str
    at: AwareDatetime
    former_image_sha256: str | None = Field(pattern=SHA256_PATTERN)
    former_mask_sha256: str | None = Field(pattern=SHA256_PATTERN)


class SampleRecord(_Frozen):
    """One sample of a chunk record: made, with its objects and scores, or failed, with the reason in ``error``.

    In a job of shards both keys are the shard's, and the file is its bytes from the offset on. Hash and length are the
    file's own in either layout.
    """

    index: int = Field(ge=0)
    seed: int = Field(ge=0, le=SEED_MAX)
    image_key: str | None = None
    image_offset: int | None = Field(None, ge=0, description="in bytes; None where the object is the file")
    image_sha256: str | None = Field(None, pattern=SHA256_PATTERN)
    image_bytes: int | None = Field(None, ge=0)
    mask_key: str | None = None
    mask_offset: int | None = Field(None, ge=0)
    mask_sha256: str | None = Field(None, pattern=SHA256_PATTERN)
    mask_bytes: int | None = Field(None, ge=0)
    instances_key: str | None = Field(None, description="None where the objects are the mask's connected regions")
    instances_offset: int | None = Field(None, ge=0)
    instances_sha256: str | None = Field(None, pattern=SHA256_PATTERN)
    instances_bytes: int | None = Field(None, ge=0)
    classes: tuple[ItemClass, ...] = Field((), description="classes in the mask, largest share first")
    confident_share: float | None = Field(None, ge=0.0, le=1.0, description="share of mask pixels that are confident")
    mean_confidence: float | None = Field(None, ge=0.0, le=1.0)
    error: str | None = None
    remade: Remade | None = Field(None, description="None as long as the bytes are those made at first")

    @model_validator(mode="after")
    def _made_or_failed(self) -> SampleRecord:
        image = (self.image_key, self.image_sha256, self.image_bytes)
        if self.error is None and None in image:
            raise ValueError(f"sample {self.index} has neither an error nor a whole image entry")
        if self.error is not None and (*image, self.image_offset) != (None, None, None, None):
            raise ValueError(f"sample {self.index} has an error, so it cannot have an image")
        further = ((self.mask_key, self.mask_offset), (self.instances_key, self.instances_offset))
        if any((offset is None) != (key is None or self.image_offset is None) for key, offset in further):
            raise ValueError(f"sample {self.index} has one file in a shard and one outside of it")
        return self


class ChunkRecord(MadeOn):
    """The commit of a chunk, written after its objects: without it, the chunk is not done.

    Formats: 1, and 2 for a record that was put in the place of another: by a repair, whose items may have ``remade``,
    or by a worker where the other could not be read.
    """

    format: Literal[1, 2] = 1
    job: str = Field(pattern=JOB_ID_PATTERN)
    chunk: int = Field(ge=0)
    items: tuple[SampleRecord, ...]
    shard: StoredObject | None = Field(
        None, description="the tar with the twins; None where each file is an object, and where no sample was made"
    )
    worker: str
    epoch: int = Field(ge=0, description="fencing epoch of the lease under which the chunk was made")
    attempt: int = Field(ge=1)
    started_at: AwareDatetime
    finished_at: AwareDatetime

    @model_validator(mode="after")
    def _shard_holds_the_twins(self) -> ChunkRecord:
        shard = set() if self.shard is None else {self.shard.key}
        if {item.image_key for item in self.items if item.image_offset is not None} != shard:
            raise ValueError(f"chunk {self.chunk} has twins in another shard than its own, or a shard without twins")
        return self

    def made_on(self, item: SampleRecord) -> MadeOn:
        """What decided the bits of one of the chunk's twins."""
        return self if item.remade is None else item.remade

    @property
    def failed(self) -> int:
        """How many of the chunk's samples failed."""
        return sum(item.error is not None for item in self.items)

    @property
    def bytes(self) -> int:
        """The size of the chunk's objects."""
        if self.shard is not None:
            return self.shard.bytes
        return sum(
            (item.image_bytes or 0) + (item.mask_bytes or 0) + (item.instances_bytes or 0) for item in self.items
        )


class Summary(_Frozen):
    """How a job ended. It is written once: the first writer decides.

    Formats: 2, and 1 for jobs whose manifest has a key without an attempt.
    """

    format: Literal[1, 2] = 2
    job: str = Field(pattern=JOB_ID_PATTERN)
    state: JobState
    done: int = Field(ge=0, description="twins made and stored")
    failed: int = Field(ge=0, description="samples that failed")
    total: int = Field(ge=1)
    started_at: AwareDatetime | None = None
    finished_at: AwareDatetime
    seconds: float = Field(ge=0.0, description="from the job's acceptance to its end")
    reason: str | None = None
    manifest: StoredObject | None = Field(None, description="None in format 1")

    @model_validator(mode="after")
    def _is_an_end(self) -> Summary:
        if not self.state.ended:
            raise ValueError(f"a summary says how a job ended; {self.state.value!r} is not an end")
        return self
