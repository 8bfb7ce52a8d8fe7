"""Jobs through both clients, against a real API on a real port."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model_store.card import ModelCard
from service.api.schemas.jobs import JobView as ServersView
from service.api.schemas.jobs import SampleView
from service.auth.key_store import KeyStore
from service.client import ApiProblem, DownloadFailed, FolderTaken, RunFailed, ServerUnreachable, StillRunning
from service.client.views import JobInfo, Sample
from service.errors import InvalidRequest, SettingsError
from service.jobs.repairs import Repair, RepairFailure
from service.jobs.repository import JobRepository
from tests.service.api.support import finish
from tests.service.cli.conftest import LiveApi
from tests.service.client.both import BothClients
from tests.service.masks.support import pillow_file, stripes
from tests.stored_twins import image_key, input_key, mask_key

PARAMETERS: dict[str, Any] = {"model": "aerial", "classes": ["water", "plants"], "count": 7, "seed": 5}


@pytest.fixture
def client(live_api: LiveApi, make_client: BothClients) -> Any:
    return make_client(live_api.url, retry_timeout_s=5.0)


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file() and ".twinset" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_a_job_is_generated_and_downloaded(client: Any, live_api: LiveApi, tmp_path: Path) -> None:
    job = client.generate(**PARAMETERS)
    fetched = job.download(tmp_path / "twins", workers=3, progress=False)

    assert (fetched.folder, fetched.files, fetched.fetched, fetched.unchanged) == (tmp_path / "twins", 14, 14, 0)
    assert (job.state, job.done, job.total) == ("succeeded", 7, 7)
    found = files(tmp_path / "twins")
    names = [f"{index:08d}.png" for index in range(7)]
    assert sorted(found) == sorted(
        ["card.json", "manifest.jsonl", *(f"{kind}/{name}" for kind in ("images", "masks") for name in names)]
    )
    for index, name in enumerate(names):
        assert found[f"images/{name}"] == live_api.store.get(image_key(live_api.store, job.id, index))
        assert found[f"masks/{name}"] == live_api.store.get(mask_key(live_api.store, job.id, index))
    lines = [json.loads(line) for line in found["manifest.jsonl"].splitlines()]
    assert [line["image"]["sha256"] for line in lines] == [
        hashlib.sha256(found[f"images/{name}"]).hexdigest() for name in names
    ]
    assert ModelCard.model_validate_json(found["card.json"]).id == "aerial@1.0.0"


def test_both_clients_fetch_the_same_bytes(live_api: LiveApi, tmp_path: Path) -> None:
    fetched = []
    for kind in ("sync", "async"):
        with BothClients(kind) as clients:
            job = clients(live_api.url).generate(**PARAMETERS, idempotency_key="the-same")
            job.download(tmp_path / kind)
            fetched.append((job.id, files(tmp_path / kind)))
    assert fetched[0] == fetched[1]
    assert len(fetched[0][1]) == 16


def test_every_parameter_reaches_the_server(client: Any) -> None:
    job = client.generate(
        model="aerial@1.0.0",
        prompt="A photo of water",
        count=2,
        seed=9,
        steps=3,
        guidance_scale=1.5,
        eta=0.5,
        size=128,
        priority="interactive",
        name="mine",
        pairs=True,
    )
    expected = {
        "steps": 3,
        "guidance_scale": 1.5,
        "eta": 0.5,
        "size": 128,
        "priority": "interactive",
        "prompt": "A photo of water",
    }
    assert (
        job.info.parameters.model_dump().items() >= {**expected, "count": 2, "seed": 9, "model": "aerial@1.0.0"}.items()
    )
    assert job.name == "mine"


def test_a_canvas_reaches_the_server_with_its_windows(client: Any) -> None:
    job = client.generate(
        model="aerial@1.0.0", classes=["water"], count=1, size="600x300", fit="canvas", canvas={"overlap_px": 64}
    )
    parameters = job.info.parameters
    assert (parameters.size, parameters.fit) == ("600x300", "canvas")
    assert parameters.canvas.model_dump() == {"window_px": 256, "overlap_px": 64, "weights": "smooth"}


def test_the_same_idempotency_key_gives_the_same_job(client: Any) -> None:
    first, second = (client.generate(**PARAMETERS, idempotency_key="script-1") for _ in range(2))
    assert first.id == second.id != client.generate(**PARAMETERS).id
    with pytest.raises(ApiProblem) as caught:
        client.generate(**{**PARAMETERS, "count": 8}, idempotency_key="script-1")
    assert caught.value.status == 409
    assert caught.value.is_kind("idempotency-conflict")
    for bad in ("", "two words", "schlüssel"):
        with pytest.raises(InvalidRequest, match="idempotency_key is"):
            client.generate(**PARAMETERS, idempotency_key=bad)


def test_all_faults_of_a_request_are_reported_at_once(client: Any) -> None:
    with pytest.raises(ApiProblem) as caught:
        client.generate(model="aerial", classes=["wter"], count=0, eta=3.0)
    assert caught.value.status == 422
    assert {fault["pointer"] for fault in caught.value.errors} == {"/classes/0", "/count", "/eta"}
    for word in ("did you mean 'water'", "count", "eta"):
        assert word in str(caught.value)
    with pytest.raises(ApiProblem, match="did you mean 'aerial'"):
        client.model("arial")
    with pytest.raises(ApiProblem) as missing:
        client.job("j7ybr17pesw6kn47yb0")
    assert missing.value.status == 404


def test_models_are_listed_with_their_cards(client: Any) -> None:
    models = {model.id: model for model in client.models()}
    assert {"aerial@1.0.0", "tissue@1.0.0"} <= models.keys()
    assert models["aerial@1.0.0"].versions == ("1.0.0",)
    assert client.model("tissue").card.inputs == ("prompt", "mask")


def test_a_repair_is_waited_for_or_not(client: Any, live_api: LiveApi) -> None:
    job = client.generate(**PARAMETERS, wait=True, progress=False)
    requested = job.repair(wait=False)
    assert (requested.state, requested.finished_at, requested.checked) == ("requested", None, None)
    with pytest.raises(StillRunning, match="call repair again"):
        job.repair(timeout=0)
    repairs = live_api.worker.repository.repairs
    request = repairs.pending(job.id)
    assert request is not None
    done = Repair(
        job=job.id, number=1, requested_at=request.requested_at, finished_at=datetime.now(UTC), checked=7, damaged=1,
        missing=0, lost_records=0, restored=0, replaced=0, failed=1, failures=(RepairFailure(index=2, reason="why"),),
    )  # fmt: skip
    timer = threading.Timer(0.5, repairs.record, [done])
    timer.start()
    found = job.repair()
    timer.join()
    assert (found.state, found.damaged, found.failed) == ("done", 1, 1)
    assert (found.failures[0].index, found.failures[0].reason) == (2, "why")


def test_waiting_returns_the_job_once_it_has_ended(client: Any, live_api: LiveApi) -> None:
    live_api.worker.idle = True
    job = client.generate(**PARAMETERS)
    assert job.state == "queued"
    assert "7 twins" in repr(job)
    with pytest.raises(StillRunning, match=r"0 of 7 twins done\. It continues") as caught:
        job.wait(timeout=0.05)
    assert isinstance(caught.value, TimeoutError)
    repository = JobRepository(live_api.store)
    later = threading.Timer(0.3, lambda: finish(repository, repository.read_spec(job.id)))
    later.start()
    begun = time.monotonic()
    assert job.wait().state == "succeeded"
    assert time.monotonic() - begun < 30
    later.join()
    assert client.job(job.id).refresh().info == job.info


def test_a_failed_or_cancelled_job_raises_unless_check_is_false(client: Any, live_api: LiveApi, tmp_path: Path) -> None:
    live_api.worker.failing = tuple(range(7))
    failed = client.generate(**PARAMETERS)
    with pytest.raises(RunFailed, match=f"job {failed.id} failed, 0 of 7 twins done"):
        failed.wait()
    with pytest.raises(RunFailed):
        client.generate(**PARAMETERS, wait=True)
    with pytest.raises(RunFailed):
        failed.download(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    assert failed.wait(check=False).state == "failed"

    live_api.worker.idle = True
    cancelled = client.generate(**PARAMETERS)
    assert cancelled.cancel().state in ("cancelling", "cancelled")
    assert cancelled.cancel().wait(check=False).state == "cancelled"
    with pytest.raises(RunFailed, match="was cancelled"):
        cancelled.wait()


def test_a_partial_job_is_downloaded_and_its_retry_makes_the_rest(
    client: Any, live_api: LiveApi, tmp_path: Path
) -> None:
    live_api.worker.failing = (2, 5)
    job = client.generate(**PARAMETERS, wait=True)
    assert (job.state, job.done, job.info.failed) == ("partial", 5, 2)
    assert [sample.index for sample in job.samples() if sample.error] == [2, 5]
    assert job.download(tmp_path / "some").files == 10
    assert not (tmp_path / "some/images/00000002.png").exists()
    live_api.worker.failing = ()
    again = job.retry()
    assert again.info.retry_of == job.id
    assert again.wait().done == 2
    assert [sample.index for sample in again.samples()] == [2, 5]
    assert job.retry().id == again.id


def test_samples_and_jobs_are_listed_over_all_pages(
    client: Any, live_api: LiveApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    from service.client import jobs

    monkeypatch.setattr(jobs, "_SAMPLES_PER_PAGE", 3)
    monkeypatch.setattr(jobs, "_JOBS_PER_PAGE", 2)
    made = [client.generate(**{**PARAMETERS, "count": 7 if number == 0 else 1}) for number in range(5)]
    samples = list(made[0].samples())
    assert [sample.index for sample in samples] == list(range(7))
    assert samples[0].classes[0].name == "water"
    assert samples[0].image.bytes > 0
    assert [job.id for job in client.jobs()] == [job.id for job in reversed(made)]
    assert list(client.jobs(state="failed")) == []
    assert len(list(client.jobs(state="succeeded"))) == 5


def test_deleting_says_whether_it_is_gone(client: Any, live_api: LiveApi) -> None:
    job = client.generate(**PARAMETERS, wait=True)
    assert job.delete() is True
    assert job.delete() is True, "a second delete finds it gone"
    live_api.worker.idle = True
    running = client.generate(**PARAMETERS)
    assert running.delete() is False
    assert running.state in ("cancelling", "cancelled")


def masks_of_every_kind(folder: Path) -> dict[str, Any]:
    labels = stripes(64)
    file = folder / "mask.png"
    file.write_bytes(pillow_file(labels))
    several = folder / "several"
    several.mkdir()
    for number in range(3):
        (several / f"{number}.png").write_bytes(pillow_file(np.roll(labels, number + 1, axis=0)))
    return {
        "a path": file,
        "a path as text": str(file),
        "bytes": file.read_bytes(),
        "a Pillow image": Image.fromarray(labels),
        "an array": labels,
        "an array of int64": labels.astype(np.int64),
        "a folder": several,
    }


@pytest.mark.parametrize(
    "kind", ["a path", "a path as text", "bytes", "a Pillow image", "an array", "an array of int64", "a folder"]
)
def test_masks_may_come_in_any_form(client: Any, live_api: LiveApi, tmp_path: Path, kind: str) -> None:
    job = client.generate(model="tissue", mask=masks_of_every_kind(tmp_path)[kind])
    assert job.total == (3 if kind == "a folder" else 1)
    spec = JobRepository(live_api.store).read_spec(job.id)
    assert spec.mask is not None
    with Image.open(io.BytesIO(live_api.store.get(input_key(live_api.store, job.id, 0)))) as stored:
        assert np.array_equal(np.array(stored), np.roll(stripes(64), 1, axis=0) if kind == "a folder" else stripes(64))


def test_a_list_of_masks_keeps_its_order_and_sends_equal_ones_once(client: Any, live_api: LiveApi) -> None:
    one, other = stripes(64), np.roll(stripes(64), 5, axis=0)
    job = client.generate(model="tissue", prompt="glands", mask=[one, other, one, Image.fromarray(other)] * 5)
    uploads = [mask.upload for mask in JobRepository(live_api.store).read_spec(job.id).mask or ()]
    assert len(uploads) == 20
    assert len(set(uploads)) == 3, "Pillow compresses the same pixels to other bytes"
    assert uploads[0] == uploads[2] == uploads[4] != uploads[1] == uploads[5]


def test_instance_maps_are_sent_with_their_masks(client: Any, live_api: LiveApi) -> None:
    mask = np.zeros((64, 64), dtype=np.uint8)
    mask[:, 20:60] = 1
    numbers = np.where(mask > 0, np.arange(64)[:, None] + 1000, 0)
    job = client.generate(model="tissue", mask=[mask, mask], instances=[numbers, None])
    spec = JobRepository(live_api.store).read_spec(job.id)
    assert spec.instances is not None
    assert spec.instances[1] is None
    with Image.open(io.BytesIO(live_api.store.get(spec.instances_key(0)))) as stored:
        assert np.array_equal(np.asarray(stored), numbers)
    with pytest.raises(ApiProblem, match=r"instances 0: instances\[0\] is 32 x 64 px, and mask\[0\] is 64 x 64"):
        client.generate(model="tissue", mask=[mask], instances=[numbers[:, :32]])
    for wrong in (numbers / 2, numbers - 1, numbers + 65_000):
        with pytest.raises(InvalidRequest, match=r"instances 0 is an array \(64, 64\) of"):
            client.generate(model="tissue", mask=[mask], instances=[wrong])


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([], "empty list"),
        (7, "of type int"),
        ("nowhere.png", "cannot be read"),
        (np.zeros((8, 8)), "float64"),
        (np.full((8, 8), 300), "holds 300 to 300"),
        (np.zeros((8, 8, 4), np.uint8), "(8, 8, 4)"),
        (Image.new("F", (8, 8)), "cannot be saved as PNG"),
    ],
)
def test_an_invalid_mask_is_refused_before_anything_is_sent(make_client: BothClients, mask: Any, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        make_client("http://127.0.0.1:1", retry_timeout_s=0).generate(model="tissue", mask=mask)
    assert message in str(caught.value)


def test_a_mask_that_the_server_refuses_is_named(client: Any, tmp_path: Path) -> None:
    (tmp_path / "oblong.png").write_bytes(pillow_file(np.zeros((8, 16), np.uint8)))
    with pytest.raises(ApiProblem, match=r"oblong\.png: .*square"):
        client.generate(model="tissue", mask=[stripes(64), tmp_path / "oblong.png"])
    (tmp_path / "strange.png").write_bytes(pillow_file(np.full((64, 64), 9, np.uint8)))
    with pytest.raises(ApiProblem, match=r"strange\.png: "):
        client.generate(model="tissue", mask=[stripes(64), tmp_path / "strange.png"])


def test_a_twin_without_a_mask_has_none(client: Any, live_api: LiveApi, tmp_path: Path) -> None:
    live_api.worker.with_masks = False
    job = client.generate(model="tissue", prompt="glands", count=3)
    assert job.download(tmp_path / "images only").files == 3
    assert not (tmp_path / "images only/masks").exists()


def test_a_key_gives_access_to_its_tenant(
    live_api: LiveApi, make_client: BothClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = KeyStore(live_api.store).create("acme")[0].text()
    with pytest.raises(ApiProblem, match="TWINSET_API_KEY"):
        make_client(live_api.url).models()
    assert make_client(live_api.url, key).generate(**PARAMETERS).id
    monkeypatch.setenv("TWINSET_API_KEY", key)
    monkeypatch.setenv("TWINSET_PUBLIC_URL", live_api.url + "/")
    assert len(list(make_client().jobs())) == 1


def test_an_unreachable_server_raises_with_the_remedy(make_client: BothClients) -> None:
    with pytest.raises(ServerUnreachable, match="twinset up"):
        make_client("http://127.0.0.1:1", retry_timeout_s=0).models()


def test_a_folder_that_holds_something_else_is_not_touched(client: Any, tmp_path: Path) -> None:
    job, other = client.generate(**PARAMETERS), client.generate(**PARAMETERS)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/README.md").write_text("my own")
    with pytest.raises(FolderTaken, match="is not empty"):
        job.download(tmp_path / "mine")
    assert files(tmp_path / "mine") == {"README.md": b"my own"}
    job.download(tmp_path / "twins")
    with pytest.raises(FolderTaken, match=f"holds job {job.id}, not job {other.id}"):
        other.download(tmp_path / "twins")
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderTaken):
        job.download(tmp_path / "file")


def test_an_invalid_number_of_workers_is_refused(client: Any, tmp_path: Path) -> None:
    for workers in (0, 65):
        with pytest.raises(SettingsError, match="workers is"):
            client.generate(**PARAMETERS).download(tmp_path / "twins", workers=workers)


def test_a_damaged_object_is_named_and_the_others_are_fetched(client: Any, live_api: LiveApi, tmp_path: Path) -> None:
    live_api.worker.damaged_mask = 3
    job = client.generate(**PARAMETERS)
    with pytest.raises(DownloadFailed, match="1 of 14 files could not be fetched") as caught:
        job.download(tmp_path / "twins")
    assert [path for path, _ in caught.value.files] == ["masks/00000003.png"]
    found = files(tmp_path / "twins")
    assert len(found) == 14
    assert "masks/00000003.png" not in found
    assert "manifest.jsonl" not in found


def test_the_value_classes_have_all_members_of_the_api() -> None:
    for servers, ours in ((ServersView, JobInfo), (SampleView, Sample)):
        missing = servers.model_fields.keys() - ours.model_fields.keys()
        assert missing <= {"layout"}, "a new member of the API needs a typed field"
