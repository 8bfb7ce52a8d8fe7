"""Shards in both kinds of store: packed, found by offset, never written over, and no byte taken for another."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from service.errors import ObjectDamaged, ObjectNotFound
from service.jobs import sample_files
from service.jobs.repository import JobRepository
from service.jobs.sample_files import (
    group_adjacent,
    read_as_stored,
    read_sample_file,
    read_sample_files,
    sample_files_of,
)
from service.jobs.sample_item import MadeTwin
from service.jobs.shards import (
    Shard,
    pack_shard,
    put_shard,
)
from service.jobs.spec import (
    ChunkRecord,
    ItemClass,
    JobSpec,
    SampleRecord,
)
from service.store import keys
from service.store.base import ObjectStore
from service.store.folder import FolderStore
from tests.service.api.support import make_chunk
from tests.service.jobs.test_values import NOW
from tests.service.jobs.test_values import spec as a_spec

LENGTHS = ((1, 512), (511, 513), (1024, 0), (70_000, 37))
"""Lengths of image and mask about those at which padding changes."""


def spec(**changes: Any) -> JobSpec:
    return a_spec(**{"layout": "shards", "count": 8, "chunk_size": 4, **changes})


def made(index: int, image: int = 700, mask: int | None = 300) -> MadeTwin:
    """A twin of so many bytes, each index's its own."""
    data = [hashlib.sha256(f"{index} {kind}".encode()).digest() * 3000 for kind in ("image", "mask")]
    found = (ItemClass(name="Water", index=1, share=0.75),)
    return MadeTwin(index, 100 + index, data[0][:image], None if mask is None else data[1][:mask], found, 0.9, 0.8)


def packed(of: JobSpec, chunk: int = 1, *, lost: tuple[int, ...] = ()) -> Shard:
    """A chunk of four, of which some failed."""
    samples = [
        SampleRecord(index=index, seed=0, error="lost") if index in lost else made(index, *LENGTHS[place])
        for place, index in enumerate(of.chunk_range(chunk))
    ]
    shard = pack_shard(of, chunk, samples)
    assert shard is not None
    return shard


def record(shard: Shard | None, items: tuple[SampleRecord, ...] = ()) -> ChunkRecord:
    values = {
        "batch_shape": (),
        "dtype": "float32",
        "device": "cpu",
        "build": {},
        "attempt": 1,
        "worker": "test",
        "epoch": 0,
    }
    return ChunkRecord(
        job=spec().job, chunk=1, items=shard.items if shard else items, shard=shard and shard.recorded,
        started_at=NOW, finished_at=NOW, **values,
    )  # fmt: skip


def test_tarfile_and_webdataset_read_the_files_of_a_shard(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    shard = packed(spec(), lost=(6,))
    path = tmp_path / "000001.tar"
    path.write_bytes(shard.data)
    with tarfile.open(path) as tar:
        members = {info.name: tar.extractfile(info).read() for info in tar}  # type: ignore[union-attr]
    indices = (4, 5, 7)
    assert list(members) == [f"{index:08d}{suffix}" for index in indices for suffix in (".png", ".mask.png", ".json")]
    assert len(shard.data) % tarfile.RECORDSIZE == 0
    samples = list(webdataset.WebDataset([str(path)], shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == [f"{index:08d}" for index in indices]
    for index, sample in zip(indices, samples, strict=True):
        twin = made(index, *LENGTHS[index - 4])
        assert sample["png"] == members[f"{index:08d}.png"] == twin.image
        assert sample["mask.png"] == members[f"{index:08d}.mask.png"] == twin.mask
        about = json.loads(sample["json"])
        assert (about["index"], about["seed"], about["job_seed"], about["classes"]) == (
            index,
            100 + index,
            1,
            ["water"],
        )
        assert about["classes_found"] == [{"name": "Water", "index": 1, "share": 0.75}]
        assert about["image"] == {"sha256": hashlib.sha256(twin.image).hexdigest(), "bytes": len(twin.image)}
        assert (about["model"], about["confident_share"], about["mean_confidence"]) == (spec().model, 0.9, 0.8)


def test_each_offset_is_where_tarfile_finds_the_file() -> None:
    shard = packed(spec(), lost=(5,))
    with tarfile.open(fileobj=io.BytesIO(shard.data)) as tar:
        where = {info.name: (info.offset_data, info.size) for info in tar}
    assert [item.error for item in shard.items] == [None, "lost", None, None]
    for item in shard.items:
        if item.error is None:
            assert (item.image_offset, item.image_bytes) == where[f"{item.index:08d}.png"]
            assert (item.mask_offset, item.mask_bytes) == where[f"{item.index:08d}.mask.png"]
            assert item.image_key == item.mask_key == keys.job_shard(spec().job, 1, shard.sha256)


def test_the_bytes_follow_from_request_and_chunk_alone() -> None:
    one, other = (
        packed(spec()),
        packed(spec(job="j7ybr17pesw6kn47yb1", name="another", created_at=NOW.replace(year=2030))),
    )
    assert one.data == other.data
    assert one.key != other.key
    assert packed(spec(seed=2)).data != one.data, "the parameters are in it"
    assert packed(spec(), lost=(4,)).data != one.data


def test_images_without_masks_have_none_in_the_shard_either() -> None:
    shard = pack_shard(spec(), 0, [made(0, mask=None)])
    assert shard is not None
    [item] = shard.items
    assert (item.mask_key, item.mask_offset, [file.kind for file in sample_files_of(item)]) == (
        None,
        None,
        ["image"],
    )
    with tarfile.open(fileobj=io.BytesIO(shard.data)) as tar:
        assert tar.getnames() == ["00000000.png", "00000000.json"]
        assert json.loads(tar.extractfile("00000000.json").read())["mask"] is None  # type: ignore[union-attr]


def test_a_chunk_of_failed_samples_has_no_shard() -> None:
    lost = [SampleRecord(index=index, seed=0, error="lost") for index in range(4)]
    assert pack_shard(spec(), 0, lost) is None
    assert record(None, tuple(lost)).bytes == 0


def test_files_are_read_from_shards_and_objects_alike(store: ObjectStore) -> None:
    repository = JobRepository(store)
    both = [spec(), spec(layout="objects", job="j7ybr17pesw6kn47yb1")]
    records = [make_chunk(repository, each, 0) for each in both]
    found = [
        [read_sample_file(store, file) for item in each.items for file in sample_files_of(item)] for each in records
    ]
    assert len(found[0]) == 8
    assert found[0] == found[1]
    assert len(set(found[0])) == 5, "four images; masks are all the same"
    assert records[0].bytes == len(store.get(records[0].shard.key))
    assert list(store.list(keys.job_prefix(spec().job) + "images/")) == []


def test_a_damaged_or_missing_shard_is_an_error_and_wrong_bytes_are_never_returned(store: ObjectStore) -> None:
    shard = packed(spec())
    store.put(shard.key, shard.data)
    image, mask = sample_files_of(shard.items[1])
    start, end = image.span
    assert start is not None
    assert end is not None
    changed = bytearray(shard.data)
    changed[start + 5] ^= 1
    store.put(shard.key, bytes(changed))
    with pytest.raises(
        ObjectDamaged, match=rf"\.tar \(bytes {start} to {end}\) in the object store has sha256 .*POST /jobs/j.*/repair"
    ):
        read_sample_file(store, image)
    assert read_sample_file(store, mask) == made(5, *LENGTHS[1]).mask, "its neighbours are sound"
    assert read_as_stored(store, image) == bytes(changed[start:end])
    store.put(shard.key, shard.data[: start + 100])
    with pytest.raises(ObjectDamaged):
        read_sample_file(store, image)
    with pytest.raises(ObjectDamaged):
        read_sample_file(store, mask)  # past the end of what is left
    store.delete(shard.key)
    with pytest.raises(ObjectNotFound):
        read_sample_file(store, image)


class Torn(FolderStore):
    """Gives other bytes the first ``torn`` times, and counts what is asked of it."""

    torn = 0
    gets = 0

    def get(self, key: str, **options: Any) -> bytes:
        self.gets += 1
        data = super().get(key, **options)
        if self.torn:
            self.torn -= 1
            return data[:-1] + b"?"
        return data


@pytest.fixture
def torn(tmp_path: Path) -> Torn:
    return Torn(tmp_path, link_secret=b"0" * 16, public_url="http://localhost")


def test_a_torn_read_is_repeated(torn: Torn) -> None:
    shard = packed(spec())
    torn.put(shard.key, shard.data)
    every = [file for item in shard.items for file in sample_files_of(item)]
    wanted = [
        data
        for place, index in enumerate(range(4, 8))
        for data in (made(index, *LENGTHS[place]).image, made(index, *LENGTHS[place]).mask)
    ]
    torn.torn = 2
    assert read_sample_file(torn, every[0]) == wanted[0]
    assert torn.gets == 3
    torn.torn, torn.gets = 1, 0
    assert read_sample_files(torn, every) == wanted
    assert torn.gets == 2, "all together, and the one that was torn by itself"
    torn.torn = 10**6
    with pytest.raises(ObjectDamaged):
        read_sample_files(torn, every)


def test_adjacent_files_of_a_shard_are_read_by_one_request_up_to_a_limit(
    torn: Torn, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = spec(count=16)
    shards = [packed(of, 0, lost=(0, 2)), packed(of, 1), packed(of, 2)]
    for shard in shards:
        torn.put(shard.key, shard.data)
    loose = make_chunk(JobRepository(torn), spec(layout="objects", job="j7ybr17pesw6kn47yb1", count=2), 0)
    pairs = [(None, item) for items in (*(shard.items for shard in shards), loose.items) for item in items]

    def runs() -> list[list[int]]:
        return [[item.index for _, item in run] for run in group_adjacent(pairs)]

    assert runs() == [[1, 3], [4, 5, 6, 7], [8, 9, 10, 11], [0], [1]]
    monkeypatch.setattr(sample_files, "READ_TOGETHER_BYTES", 5700)
    assert runs() == [[1], [3], [4, 5], [6], [7], [8, 9], [10], [11], [0], [1]]
    for bound, asked in ((5700, 15), (10**6, 7)):
        monkeypatch.setattr(sample_files, "READ_TOGETHER_BYTES", bound)
        torn.gets = 0
        read = [
            read_sample_files(torn, [file for _, item in run for file in sample_files_of(item)])
            for run in group_adjacent(pairs)
        ]
        assert sum(map(len, read)) == 2 * 12
        assert torn.gets == asked
        assert read[-1] == [torn.get(loose.items[1].image_key or ""), torn.get(loose.items[1].mask_key or "")]


def test_the_same_shard_put_again_changes_nothing(store: ObjectStore) -> None:
    shard = packed(spec())
    put_shard(store, shard)
    before = store.head(shard.key)
    put_shard(store, packed(spec()))
    assert store.head(shard.key) == before, "it is not written again"


def test_attempts_that_differ_leave_each_others_shards_alone_and_the_record_says_which_counts(
    store: ObjectStore,
) -> None:
    """One had lost a sample and was stopped before its record; were it written over, woken again it would spoil the
    other's."""
    repository = JobRepository(store)
    stopped, whole = packed(spec(), lost=(5,)), packed(spec())
    put_shard(store, whole)
    assert repository.chunks.write(record(whole))
    put_shard(store, stopped)
    assert not repository.chunks.write(record(stopped))
    assert stopped.key != whole.key == keys.job_shard(spec().job, 1, whole.sha256)
    counted = repository.chunks.read(spec().job, 1)
    assert counted == record(whole)
    for shard in (stopped, whole):
        assert store.get(shard.key) == shard.data
        for item in shard.items:
            assert all(
                hashlib.sha256(read_sample_file(store, file)).hexdigest() == file.sha256
                for file in sample_files_of(item)
            )


def test_a_torn_shard_is_written_again(store: ObjectStore) -> None:
    shard = packed(spec())
    for torn in (shard.data[:-1], shard.data[:-1] + b"?"):
        store.put(shard.key, torn)
        put_shard(store, shard)
        assert store.get(shard.key) == shard.data
