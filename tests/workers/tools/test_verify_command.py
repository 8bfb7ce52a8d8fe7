"""Tests of ``twinset verify`` with a real model and a folder store: exit codes and messages."""

from __future__ import annotations

import hashlib
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from service.cli.root import run
from service.jobs.repository import JobRepository
from service.jobs.spec import ChunkRecord, JobSpec
from service.kit.png import encode_image
from service.registry.register import register_folder
from service.store import keys
from service.store.folder import FolderStore
from tests.stored_twins import image_key, mask_key
from tests.workers.conftest import Hire
from tests.workers.fakes import Post
from tests.workers.generation.test_chunk import accept, work


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "kept"


@pytest.fixture
def stored(data_dir: Path) -> FolderStore:
    return FolderStore(data_dir / "store", link_secret=b"0123456789abcdef", public_url="http://127.0.0.1:8000")


@pytest.fixture
def job(hire: Hire, post: Post, stored: FolderStore, tiny_model: Path) -> JobSpec:
    """Six twins of a real, tiny CoSimGen, in chunks of three."""
    card, _ = register_folder(tiny_model, stored, tenant=None)
    worker = hire(store=stored, load=None)
    sha256 = card.files["model.safetensors"].sha256
    spec = accept(worker, post, card=card, weights_sha256=sha256, count=6, chunk_size=3, size=32)
    work(worker, post)
    return spec


def verify(data_dir: Path, *arguments: str) -> int:
    return run(["verify", *arguments, "--data-dir", str(data_dir)])


def rewrite(stored: FolderStore, job: str, **build: str) -> None:
    """Lays ``build`` over what the job's first record says of its build."""
    key = keys.job_chunk(job, 0)
    record = ChunkRecord.model_validate_json(stored.get(key))
    stored.put(key, record.model_copy(update={"build": record.build | build}).model_dump_json().encode())


def test_an_intact_job_exits_with_0_and_the_seed_repeats_the_choice(
    job: JobSpec, data_dir: Path, stored: FolderStore, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {info.key: stored.get(info.key) for info in stored.list("")}
    assert verify(data_dir, job.job, "--count", "3") == 0
    first = capsys.readouterr().out
    assert "3 of 6 twins from tiny@1.0.0, drawn with --seed " in first
    assert "3 of 3" in first
    assert first.count("as recorded, and the same when made again") == 3
    seed = first.partition("--seed ")[2].split()[0]
    assert verify(data_dir, job.job, "--count", "3", "--seed", seed) == 0
    twins = [line for line in first.splitlines() if line.startswith("✓  ")]
    assert twins == [line for line in capsys.readouterr().out.splitlines() if line.startswith("✓  ")]
    assert len(twins) == 3
    assert {info.key: stored.get(info.key) for info in stored.list("")} == before


def test_a_count_above_the_jobs_takes_all_twins(
    job: JobSpec, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(data_dir, job.job, "--count", "50") == 0
    text = capsys.readouterr().out
    assert "50 were requested, but the job has no more" in text
    assert "All 6 twins are stored as recorded" in text


def test_a_damaged_object_exits_with_1_and_is_named(
    job: JobSpec, data_dir: Path, stored: FolderStore, capsys: pytest.CaptureFixture[str]
) -> None:
    stored.put(image_key(stored, job.job, 4), b"not what was recorded")
    assert verify(data_dir, job.job, "--count", "6") == 1
    text = capsys.readouterr().out
    damaged = f"damaged in the store: the sha256 of {image_key(stored, job.job, 4)} is not the recorded one; the same"
    assert f"✗     4  image {damaged}" in text
    assert "1 of 6 twins is not stored as recorded." in text
    assert "not the same when made again" not in text


def test_a_difference_on_another_build_exits_with_3_and_names_it(
    job: JobSpec, data_dir: Path, stored: FolderStore, capsys: pytest.CaptureFixture[str]
) -> None:
    # as if another build had made it: other pixels, and a record that is true of them
    key = keys.job_chunk(job.job, 0)
    record = ChunkRecord.model_validate_json(stored.get(key))
    data = encode_image(np.full((32, 32, 3), 100, np.uint8), {})
    stored.put(image_key(stored, job.job, 0), data)
    items = (record.items[0].model_copy(update={"image_sha256": hashlib.sha256(data).hexdigest()}), *record.items[1:])
    stored.put(key, record.model_copy(update={"items": items}).model_dump_json().encode())
    assert verify(data_dir, job.job, "--count", "6") == 1
    text = capsys.readouterr().out
    assert "image stored as recorded; different when made again by at most 1" in text
    assert "1 of 6 twins is not the same when made again, on the same machine and build." in text
    rewrite(stored, job.job, torch="1.0")
    assert verify(data_dir, job.job, "--count", "6") == 3
    text = capsys.readouterr().out
    assert "1 of 6 twins is not the same when made again." in text
    assert "proves nothing about the store" in text
    assert "recorded 1.0; here " in text


def test_errors_exit_with_2_and_one_line(
    job: JobSpec, data_dir: Path, stored: FolderStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = "j" + "0" * 18
    unmade = job.model_copy(update={"job": other})
    gone = job.model_copy(update={"job": "j" + "1" * 18, "model": "nowhere@1.0.0"})

    def error(folder: Path, name: str) -> str:
        assert verify(folder, name) == 2
        text = capsys.readouterr().err
        assert text.count("\n") == 1
        assert text.startswith("Error: ")
        return text

    assert f"there is no job '{other}' in file://" in (text := error(data_dir, other))
    assert str(data_dir) in text
    assert "is not a job id" in error(data_dir, "../../etc")
    assert "there is no store in" in error(tmp_path / "nothing", other)
    assert not (tmp_path / "nothing").exists()
    stored.put(keys.job_spec(other), unmade.model_dump_json().encode())
    assert "none of its chunks is recorded yet" in error(data_dir, other)
    stored.put(keys.job_spec(gone.job), gone.model_dump_json().encode())
    record = stored.get(keys.job_chunk(job.job, 0)).replace(job.job.encode(), gone.job.encode())
    stored.put(keys.job_chunk(gone.job, 0), record)
    assert "neither bundled nor registered" in error(data_dir, gone.job)


def test_the_store_is_that_of_the_environment(
    job: JobSpec, data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TWINSET_DATA_DIR", str(data_dir))
    assert run(["verify", job.job, "--count", "1"]) == 0
    assert "The twin is stored as recorded" in capsys.readouterr().out


def test_help_and_errors_without_torch() -> None:
    code = (
        "import sys\nfrom service.cli.root import run\nassert run(['verify', '--help']) == 0\n"
        "print('loaded:', sorted({'torch', 'numpy', 'pydantic', 'rich'} & sys.modules.keys()))\n"
        "sys.modules['torch'] = None\nsys.exit(run(['verify', 'j' + '0' * 18]))"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "loaded: []" in finished.stdout
    assert "Exit code" in finished.stdout
    assert finished.returncode == 2
    assert "pip install 'twinset[all]'" in finished.stderr


def remedy(text: str) -> list[str]:
    """The arguments of the command that the text tells to run."""
    [line] = [line for line in text.splitlines() if "To make damaged and missing twins again: " in line]
    program, *arguments = shlex.split(line.partition("again: ")[2])
    assert program == "twinset"
    return arguments


def test_the_remedy_that_is_printed_repairs_the_job(
    job: JobSpec, data_dir: Path, stored: FolderStore, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {info.key: stored.get(info.key) for info in stored.list(f"jobs/{job.job}/")}
    stored.put(image_key(stored, job.job, 4), b"not what was recorded")
    stored.delete(mask_key(stored, job.job, 1))
    assert verify(data_dir, job.job, "--count", "6") == 1
    text = capsys.readouterr().out
    assert f"POST /jobs/{job.job}/repair" in text
    assert run(remedy(text)) == 0
    text = capsys.readouterr().out
    assert "Found 1 damaged, 1 missing. Made again: 2 with their recorded bytes." in text
    assert {key: stored.get(key) for key in before} == before
    assert verify(data_dir, job.job, "--count", "6") == 0
    [repair] = JobRepository(stored).repairs.of_job(job.job)
    assert (repair.damaged, repair.missing, repair.restored, repair.failed) == (1, 1, 2, 0)
    assert JobRepository(stored).repairs.pending(job.job) is None


def test_damage_that_was_not_drawn_is_repaired_too_and_an_intact_job_is_left_alone(
    job: JobSpec, data_dir: Path, stored: FolderStore, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(data_dir, job.job, "--count", "1", "--seed", "1", "--repair") == 0
    assert "All 6 stored twins are as recorded; nothing was to be repaired." in capsys.readouterr().out
    for index in range(6):
        stored.put(image_key(stored, job.job, index), b"not what was recorded")
    assert verify(data_dir, job.job, "--count", "1", "--repair") == 0
    assert "Found 6 damaged. Made again: 6 with their recorded bytes." in capsys.readouterr().out


@pytest.mark.parametrize("chunks", [(1,), (0, 1)])
def test_records_that_cannot_be_read_are_damage_and_repaired_as_far_as_is_known_how(
    job: JobSpec, data_dir: Path, stored: FolderStore, capsys: pytest.CaptureFixture[str], chunks: tuple[int, ...]
) -> None:
    for chunk in chunks:
        stored.put(keys.job_chunk(job.job, chunk), b"{")
    assert verify(data_dir, job.job, "--count", "6") == 1
    text = capsys.readouterr().out
    assert f"{keys.job_chunk(job.job, 1)} in the object store is not a ChunkRecord" in text
    assert run(remedy(text)) == (0 if chunks == (1,) else 1)
    text = capsys.readouterr().out
    if chunks == (1,):
        assert "Found 1 chunk whose record was lost" in text
        assert verify(data_dir, job.job, "--count", "6") == 0
    else:
        assert "6 could not be made again" in text
        assert "no record of the job can be read" in text


def test_a_job_that_runs_is_not_repaired(
    job: JobSpec, data_dir: Path, stored: FolderStore, capsys: pytest.CaptureFixture[str]
) -> None:
    stored.delete(keys.job_summary(job.job))
    assert verify(data_dir, job.job, "--repair") == 2
    assert "has not ended" in capsys.readouterr().err
    assert JobRepository(stored).repairs.pending(job.job) is None
