"""Bad masks: each is refused by its pointer before there is any job, all at once, and nothing is kept."""

from __future__ import annotations

import base64
import io
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from service.api.app import create_app
from service.jobs.repository import JobRepository
from service.store import ObjectStore, keys
from tests.service.api.support import (
    DictLiveState,
    NotingQueue,
    binary_card,
    mask_card,
    register,
    settings_for,
)
from tests.service.masks.support import (
    chunk,
    file,
    header,
    painted,
    pillow_file,
    stripes,
)
from tests.stored_twins import input_key

LABELS = stripes(64)
PNG = pillow_file(LABELS)


@pytest.fixture(autouse=True)
def mask_models(store: ObjectStore) -> None:
    register(store, mask_card(), binary_card())


def sent(data: bytes) -> dict[str, str]:
    return {"png": base64.b64encode(data).decode()}


def bomb() -> bytes:
    """All that a decoder would need to fill 900 million pixels, in under a megabyte."""
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(30_001)) for _ in range(30_000)) + packer.flush()
    return file(header(30_000, 30_000), chunk(b"IDAT", packed))


def animation() -> bytes:
    return pillow_file(Image.fromarray(LABELS), save_all=True, append_images=[Image.fromarray(LABELS[:, ::-1].copy())])


def blurred() -> bytes:
    return pillow_file(Image.fromarray(painted(LABELS)).resize((72, 72), Image.Resampling.BILINEAR))


REFUSED: dict[str, tuple[Any, str, str]] = {
    "not a PNG": (sent(pillow_file(painted(LABELS), "JPEG")), "/mask", "mask is not a PNG: it looks like a JPEG"),
    "truncated": (sent(PNG[:-40]), "/mask", f"mask breaks off after {len(PNG) - 40} bytes"),
    "damaged": (sent(PNG[:50] + b"\0\0" + PNG[52:]), "/mask", "mask is damaged: the checksum"),
    "16 bit": (sent(pillow_file(LABELS.astype(np.uint16))), "/mask", "mask has 16 bits a channel, and masks have 8"),
    "animated": (sent(animation()), "/mask", "mask is animated, with 2 frames"),
    "see-through": (
        sent(pillow_file(np.dstack([painted(LABELS), LABELS * 60]))),
        "/mask",
        "mask is not opaque at 4096 pixels, the first at x 0, y 0",
    ),
    "not square": (
        sent(pillow_file(LABELS[:, :50].copy())),
        "/mask",
        "mask is 50 x 64 px, and masks are square; crop or pad",
    ),
    "too small": (sent(pillow_file(LABELS[:7, :7].copy())), "/mask", "its side must be 8 to 4096 px"),
    "a bomb": (sent(bomb()), "/mask", "mask is 30000 x 30000 px; its side must be 8 to 4096 px"),
    "blurred": (sent(blurred()), "/mask", "of its colours are not a class's. Use exactly the colours of tissue@1.0.0"),
    "labels of no class": (
        sent(pillow_file(LABELS + 2)),
        "/mask",
        "the model does not know: 4, 5; tissue@1.0.0 has classes 0 to 3",
    ),
    "ignore": (
        sent(pillow_file(np.where(LABELS == 3, 255, LABELS).astype(np.uint8))),
        "/mask",
        "which a model cannot draw",
    ),
    "bad base64": ({"png": "iVBO*"}, "/mask", 'not base64: "*" at character 4'),
    "unknown upload": (
        {"upload": "ab" * 32},
        "/mask",
        f"has the upload '{'ab' * 32}', which does not exist; send its file by POST",
    ),
    "no upload id": ({"upload": "../../jobs"}, "/mask", 'the upload "../../jobs", which is not an id'),
    "a path": ("mask.png", "/mask", 'mask is "mask.png"; give {"png"'),
    "an empty list": ([], "/mask", "mask is []: the list is empty; give 1 to 1000 masks"),
    "too many": ([{"upload": "0" * 64}] * 1001, "/mask", "mask lists 1001 masks; a job takes 1 to 1000"),
    "the second of two": ([sent(PNG), sent(PNG[:-40])], "/mask/1", "mask[1] breaks off after"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_mask_is_refused_by_its_pointer_and_leaves_nothing(
    client: TestClient, store: ObjectStore, repository: JobRepository, queue: NotingQueue, case: str
) -> None:
    mask, pointer, words = REFUSED[case]
    answer = client.post("/generate", json={"model": "tissue", "mask": mask})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == "/problems/invalid-request"
    [fault] = problem["errors"]
    assert fault["pointer"] == pointer
    assert words in fault["detail"]
    assert (list(repository.jobs()), list(store.list("uploads/")), queue.sent) == ([], [], [])


def test_bad_masks_are_told_together_with_everything_else(client: TestClient) -> None:
    masks = [sent(PNG), {"png": "?"}, sent(b"GIF89a"), {"upload": "1" * 64}]
    body = {"model": "tissue", "mask": masks, "size": 65, "guidance_target": "mask", "steps": 0, "count": 0}
    pointers = [fault["pointer"] for fault in client.post("/generate", json=body).json()["errors"]]
    assert pointers == ["/mask/1", "/mask/2", "/mask/3", "/count", "/steps", "/size"]


def test_a_missing_count_is_forgiven_only_with_masks(client: TestClient) -> None:
    refused = client.post("/generate", json={"model": "tissue", "prompt": "glands"})
    assert refused.json()["errors"][0]["pointer"] == "/count"
    assert "count is missing" in refused.json()["detail"]
    assert "left out where masks are given" in refused.json()["detail"]
    wrong = client.post("/generate", json={"model": "tissue", "mask": sent(PNG), "count": "2"})
    assert 'count is "2": give an integer' in wrong.json()["detail"]


def test_the_same_bad_file_is_told_once_and_after_twenty_the_rest_is_not_looked_at(client: TestClient) -> None:
    same = client.post("/generate", json={"model": "tissue", "mask": [sent(b"GIF89a")] * 50}).json()
    assert [fault["pointer"] for fault in same["errors"]] == ["/mask/0"]
    masks = [sent(b"GIF8" + bytes([number])) for number in range(100)]
    many = client.post("/generate", json={"model": "tissue", "mask": masks}).json()["errors"]
    assert [fault["pointer"] for fault in many] == [f"/mask/{number}" for number in range(20)] + ["/mask"]
    assert many[-1]["detail"] == "20 masks are refused; those after mask[19] were not read"


@pytest.mark.parametrize("mask", ["NaN", "[" * 400 + "]" * 400, '[{"png": "x"}, -Infinity]'])
def test_json_that_is_hardly_any_is_told_by_the_member(client: TestClient, mask: str) -> None:
    body = f'{{"model": "tissue", "mask": {mask}}}'
    answer = client.post("/generate", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"].startswith("/mask")
    assert "count" not in answer.json()["detail"]


def test_binary_is_for_models_of_two_classes(client: TestClient) -> None:
    answer = client.post("/generate", json={"model": "tissue", "mask": sent(PNG), "mask_encoding": "binary"})
    [fault] = answer.json()["errors"]
    assert fault["pointer"] == "/mask_encoding"
    assert "models that have two, and tissue@1.0.0 has 4; give index or colours" in fault["detail"]
    two = pillow_file(Image.fromarray(stripes(64, 2) * 255).convert("1"))
    made = client.post("/generate", json={"model": "polyps", "mask": sent(two), "mask_encoding": "binary"})
    assert made.status_code == 202


def test_a_mask_that_can_be_read_in_two_ways_is_read_as_it_is_said(
    client: TestClient, repository: JobRepository
) -> None:
    image = Image.fromarray(LABELS)
    turned = [entry["colour"] for entry in mask_card()["classes"]][::-1]
    image.putpalette([channel for colour in turned for channel in colour])
    body = {"model": "tissue", "mask": sent(pillow_file(image))}
    refused = client.post("/generate", json=body)
    assert refused.status_code == 422
    assert "is ambiguous" in refused.json()["detail"]
    assert "mask_encoding" in refused.json()["detail"]
    for encoding, wanted in (("index", LABELS), ("colours", 3 - LABELS)):
        job = client.post("/generate", json={**body, "mask_encoding": encoding}).json()["id"]
        with Image.open(io.BytesIO(repository.store.get(input_key(repository.store, job, 0)))) as stored:
            assert np.array_equal(np.asarray(stored), wanted)


def test_an_upload_that_was_damaged_is_no_fault_of_the_request(
    client: TestClient, store: ObjectStore, repository: JobRepository
) -> None:
    answer = client.post("/uploads", content=PNG, headers={"Content-Type": "image/png"})
    upload = answer.json()["upload"]
    store.put(keys.upload("default", upload), PNG[:-1])
    broken = client.post("/generate", json={"model": "tissue", "mask": {"upload": upload}})
    assert (broken.status_code, broken.json()["type"]) == (503, "/problems/store-error")
    assert "send the file again" in broken.json()["detail"]
    assert list(repository.jobs()) == []
    along = client.post("/generate", json={"model": "tissue", "mask": [{"upload": upload}, sent(PNG)]})
    assert along.status_code == 202
    assert store.get(keys.upload("default", upload)) == PNG


def test_the_services_own_limits_on_masks_hold(tmp_path_factory: pytest.TempPathFactory) -> None:
    settings = settings_for(tmp_path_factory.mktemp("tight"), max_masks=2, max_mask_px=32, max_count=1)
    app = create_app(settings, queue=NotingQueue(), live_state=DictLiveState())
    register(app.state.services.store, mask_card())
    with TestClient(app) as client:
        small = [sent(pillow_file(stripes(16))), sent(pillow_file(stripes(32)))]

        def details(mask: Any) -> str:
            return client.post("/generate", json={"model": "tissue", "mask": mask}).json()["detail"]

        assert "a job takes 1 to 2" in details(small * 2)
        assert "its side must be 8 to 32 px" in details(sent(PNG))
        assert details(small) == "count is 2: it must be 1 to 1; ask for more in several jobs"
        assert client.post("/generate", json={"model": "tissue", "mask": small[0]}).status_code == 202
