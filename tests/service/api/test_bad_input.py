"""Bad input: each kind is refused with a problem that names the value, the limit and the remedy."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

from service.api.app import create_app
from service.jobs.repository import JobRepository
from service.settings import Settings
from service.store import ObjectStore
from tests.service.api.support import (
    DictLiveState,
    NotingQueue,
    card,
    mask_card,
    png,
    register,
    settings_for,
)

GOOD: dict[str, Any] = {"model": "aerial", "classes": ["water"], "count": 8}

REFUSED = {
    "unknown model": ({"model": "aeriel"}, 404, "unknown-model", ["'aeriel'", "did you mean 'aerial'?"]),
    "unknown version": ({"model": "aerial@2.0.0"}, 404, "unknown-model", ["'2.0.0'", "1.10.0, 1.9.0, 1.0.0"]),
    "model that is no name": ({"model": "../etc"}, 404, "unknown-model", ["'../etc'", "aerial"]),
    "unknown class": (
        {"classes": ["water", "watre"]},
        422,
        "unknown-class",
        ["watre", "did you mean 'water'?", "building, water, vegetation"],
    ),
    "class far from any": ({"classes": ["zzz"]}, 422, "unknown-class", ["zzz", "building, water, vegetation"]),
    "class not to be asked for": (
        {"classes": ["Unlabelled"]},
        422,
        "invalid-request",
        ["Unlabelled", "cannot be requested"],
    ),
    "no classes": ({"classes": []}, 422, "invalid-request", ["[]", "building, water, vegetation"]),
    "both": ({"prompt": "a lake"}, 422, "invalid-request", ["prompt and classes together", "give prompt, or classes"]),
    "neither": ({"classes": None}, 422, "invalid-request", ["nothing to make", "give prompt, or classes"]),
    "mask": ({"classes": None, "mask": "x"}, 422, "invalid-request", ["takes no mask", "prompt, or classes"]),
    "masks for a model without": (
        {"classes": None, "mask": [{"upload": "0" * 64}]},
        422,
        "invalid-request",
        ["takes no mask"],
    ),
    "no count": ({"count": None}, 422, "invalid-request", ["count is missing", "left out where masks"]),
    "pairs as text": ({"pairs": "yes"}, 422, "invalid-request", ['pairs is "yes"', "give true or false"]),
    "mask encoding unknown": (
        {"mask_encoding": "rgb"},
        422,
        "invalid-request",
        ['mask_encoding is "rgb"', "'colours'"],
    ),
    "mask encoding without masks": (
        {"mask_encoding": "index"},
        422,
        "invalid-request",
        ["none is given", "leave it out"],
    ),
    "guidance target unknown": ({"guidance_target": "both"}, 422, "invalid-request", ['"both"', "'joint'"]),
    "guidance target without choice": (
        {"guidance_target": "text"},
        422,
        "invalid-request",
        ["has no choice", "leave it out"],
    ),
    "empty prompt": ({"classes": None, "prompt": " \n"}, 422, "invalid-request", ["empty", "say what"]),
    "long prompt": ({"classes": None, "prompt": "x" * 2001}, 422, "invalid-request", ["2001", "2000", "shorten"]),
    "wordy prompt": (
        {"classes": None, "prompt": "a " * 33},
        422,
        "invalid-request",
        ["33 words", "32 tokens", "shorten"],
    ),
    "control characters": ({"classes": None, "prompt": "a\0b"}, 422, "invalid-request", ["\\u0000", "leave them out"]),
    "half a surrogate pair": ({"classes": None, "prompt": "a\ud800"}, 422, "invalid-request", ["\\ud800", "leave"]),
    "count zero": ({"count": 0}, 422, "invalid-request", ["count is 0", "1 to 100000"]),
    "count too high": ({"count": 100001}, 422, "invalid-request", ["100001", "1 to 100000", "several jobs"]),
    "priority unknown": (
        {"priority": "high"},
        422,
        "invalid-request",
        ['priority is "high"', "'normal'", "'interactive'"],
    ),
    "count too high for interactive": (
        {"priority": "interactive", "count": 65},
        422,
        "invalid-request",
        ["count is 65", "1 to 64", "an interactive job", "ask for fewer", "leave priority out"],
    ),
    "steps zero": ({"steps": 0}, 422, "invalid-request", ["steps is 0", "1 to 200"]),
    "steps too high": ({"steps": 201}, 422, "invalid-request", ["201", "1 to 200", "defaults to 50"]),
    "size": ({"size": 100}, 422, "invalid-request", ["size is 100", "64, 128, 256"]),
    "guidance too low": ({"guidance_scale": -0.5}, 422, "invalid-request", ["-0.5", "0 to 20"]),
    "guidance too high": ({"guidance_scale": 20.5}, 422, "invalid-request", ["20.5", "0 to 20", "defaults to 2"]),
    "eta": ({"eta": 1.5}, 422, "invalid-request", ["eta is 1.5", "0 to 1"]),
    "seed negative": ({"seed": -1}, 422, "invalid-request", ["seed is -1", "9007199254740991"]),
    "seed too high": ({"seed": 2**53}, 422, "invalid-request", ["9007199254740992", "9007199254740991"]),
    "name": ({"name": "n" * 121}, 422, "invalid-request", ["121", "120", "shorten"]),
    "count as text": ({"count": "8"}, 422, "invalid-request", ['count is "8"', "give an integer"]),
    "count as truth": ({"count": True}, 422, "invalid-request", ["count is true", "give an integer"]),
    "count with a fraction": ({"count": 8.5}, 422, "invalid-request", ["count is 8.5", "give an integer"]),
    "classes as text": ({"classes": "water"}, 422, "invalid-request", ['classes is "water"', "give a list"]),
    "class as number": ({"classes": ["water", 7]}, 422, "invalid-request", ["classes[1] is 7", "give a string"]),
    "prompt as list": ({"classes": None, "prompt": ["x"]}, 422, "invalid-request", ["prompt is", "give a string"]),
    "unknown member": ({"guidance": 2}, 422, "invalid-request", ['"guidance"', "did you mean 'guidance_scale'?"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_helpfully(
    client: TestClient, case: str, repository: JobRepository, queue: NotingQueue
) -> None:
    change, status, slug, words = REFUSED[case]
    body = {key: value for key, value in {**GOOD, **change}.items() if value is not None}
    answer = client.post("/generate", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["type"], problem["status"], problem["instance"]) == (f"/problems/{slug}", status, "/generate")
    for word in words:
        assert word in problem["detail"]
    assert list(repository.jobs()) == []
    assert queue.sent == []


def test_all_faults_are_told_at_once_by_pointer(client: TestClient) -> None:
    body = {"model": "aerial", "classes": ["water", "x/y"], "count": 0, "size": 5}
    problem = client.post("/generate", json=body).json()
    assert [fault["pointer"] for fault in problem["errors"]] == ["/classes/1", "/count", "/size"]
    assert problem["type"] == "/problems/invalid-request"
    typed = client.post("/generate", json={**GOOD, "classes": ["a", 3], "a/b~c": 1}).json()
    assert {fault["pointer"] for fault in typed["errors"]} == {"/classes/1", "/a~1b~0c"}


def test_of_very_many_faults_the_first_are_told_and_how_many_more_there_are(client: TestClient) -> None:
    for classes in ([f"no{number}" for number in range(200)], list(range(200))):
        problem = client.post("/generate", json={**GOOD, "classes": classes}).json()
        assert [fault["pointer"] for fault in problem["errors"]] == [f"/classes/{number}" for number in range(50)] + [
            ""
        ]
        assert problem["errors"][-1]["detail"] == "and 150 more, which are not listed"
    [fault] = client.post("/generate", json={**GOOD, "classes": ["water"] * 257}).json()["errors"]
    assert fault["pointer"] == "/classes"
    assert fault["detail"].endswith("it has 257 entries; give 256 at most")
    [fault] = client.post("/generate", json={**GOOD, **{f"m{number}": 1 for number in range(100)}}).json()["errors"]
    assert fault["pointer"] == ""
    assert "it has 103 members; leave out those that a request does not have" in fault["detail"]


def test_a_missing_member_is_named(client: TestClient) -> None:
    problem = client.post("/generate", json={"classes": ["water"]}).json()
    assert [fault["pointer"] for fault in problem["errors"]] == ["/model", "/count"]
    assert "count is missing" in problem["detail"]


@pytest.mark.parametrize(
    "text", ["{", '{"a":}', "", "nonsense", "[" * 100_000, '{"count":' + "9" * 5000 + "}", b"\xff{}"]
)
def test_a_body_that_is_not_json_is_refused(client: TestClient, text: str | bytes) -> None:
    answer = client.post("/generate", content=text, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"
    assert "object" in answer.json()["detail"]


@pytest.mark.parametrize("body", ["[]", '"x"', "7", "null", '{"count": NaN, "model": "aerial", "classes": ["water"]}'])
def test_json_that_is_no_request_is_refused(client: TestClient, body: str) -> None:
    answer = client.post("/generate", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        ("/generate", '{"model": "aerial", "classes": ["water"], "count": 1, "count": 800}', "count"),
        ("/generate", '{"model": "aerial", "classes": ["water"], "count": 1, "c\\u006funt": 800}', "count"),
        ("/augmentations", '{"dataset": "a", "model": "aerial", "add": {"factor": 1, "factor": 9}}', "factor"),
        ("/datasets", '{"name": "a", "prefix": "b", "prefix": "c"}', "prefix"),
    ],
)
def test_a_name_that_comes_twice_is_refused_for_parsers_differ(
    client: TestClient, path: str, body: str, name: str
) -> None:
    answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert f"'{name}' twice in one object" in answer.json()["detail"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/json-patch", None])
def test_a_body_of_another_kind_is_refused(client: TestClient, kind: str | None) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    answer = client.post("/generate", content=json.dumps(GOOD).encode(), headers=headers)
    assert answer.status_code == 415
    assert answer.headers["content-type"] == "application/problem+json"
    assert "application/json" in answer.json()["detail"]
    assert (kind or "missing") in answer.json()["detail"]


@pytest.fixture
def narrow_client(settings: Settings, store: ObjectStore) -> Iterator[TestClient]:
    narrow = Settings(**{**settings.model_dump(exclude={"model_cache_dir"}), "max_body_bytes": 1024})
    with TestClient(create_app(narrow, store=store, queue=NotingQueue(), live_state=DictLiveState())) as client:
        yield client


def test_a_body_over_the_limit_is_refused_by_its_announced_length(narrow_client: TestClient) -> None:
    answer = narrow_client.post("/generate", json={**GOOD, "name": "x" * 2000})
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["limit"] == 1024
    assert "at most 1024" in answer.json()["detail"]


def test_a_chunked_body_over_the_limit_is_refused_while_it_is_read(narrow_client: TestClient) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 1
            yield b" " * 512

    answer = narrow_client.post("/generate", content=endless(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert answer.json()["type"] == "/problems/body-too-large"


def test_a_body_at_the_limit_is_read(narrow_client: TestClient) -> None:
    body = json.dumps(GOOD).encode()
    padded = body + b" " * (1024 - len(body))
    headers = {"Content-Type": "application/json"}
    assert narrow_client.post("/generate", content=padded, headers=headers).status_code == 202
    assert narrow_client.post("/generate", content=iter([padded]), headers=headers).status_code == 202
    assert narrow_client.post("/generate", content=iter([padded, b" "]), headers=headers).status_code == 413


@pytest.mark.parametrize("key", ["", "x" * 256, "a b"])
def test_an_idempotency_key_that_is_none_is_refused(client: TestClient, key: str) -> None:
    answer = client.post("/generate", json=GOOD, headers={"Idempotency-Key": key})
    assert answer.status_code == 422
    assert "1 to 255" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["", "/samples", "/events", "/archive"])
@pytest.mark.parametrize("job", ["j7ybr17pesw6kn47yb0", "nonsense", "%2e%2e", "j" + "0" * 500])
def test_an_unknown_job_is_404_everywhere(client: TestClient, job: str, path: str) -> None:
    answer = client.get(f"/jobs/{job}{path}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] in ("/problems/unknown-job", "/problems/no-such-path")


def test_cancelling_an_unknown_job_is_404(client: TestClient) -> None:
    assert client.delete("/jobs/j7ybr17pesw6kn47yb0").json()["type"] == "/problems/unknown-job"


@pytest.mark.parametrize("query", ["state=done", "limit=0", "limit=101", "limit=x", "cursor=zzz"])
def test_bad_query_parameters_are_named(client: TestClient, query: str) -> None:
    answer = client.get(f"/jobs?{query}")
    assert answer.status_code == 422
    name, _, value = query.partition("=")
    assert [fault["parameter"] for fault in answer.json()["errors"]] == [name]
    assert value in answer.json()["detail"]


def test_an_unknown_path_and_method_are_problems(client: TestClient) -> None:
    nowhere = client.get("/nowhere")
    assert (nowhere.status_code, nowhere.json()["type"]) == (404, "/problems/no-such-path")
    wrong = client.put("/jobs/j7ybr17pesw6kn47yb0")
    assert (wrong.status_code, wrong.json()["type"]) == (405, "/problems/method-not-allowed")
    assert wrong.headers["allow"] == "DELETE, GET"
    assert nowhere.headers["content-type"] == wrong.headers["content-type"] == "application/problem+json"


def test_a_fault_of_ours_is_a_problem_that_tells_nothing(app: FastAPI, client: TestClient) -> None:
    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError("the secret is 1234")

    answer = client.get("/broken")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "1234" not in answer.text


def test_every_problem_type_can_be_looked_up(client: TestClient) -> None:
    problem = client.post("/generate", json={**GOOD, "classes": ["x"]}).json()
    told = client.get(problem["type"]).json()
    assert (told["slug"], told["status"], told["title"]) == ("unknown-class", 422, problem["title"])
    assert client.get("/problems/nonsense").status_code == 404


def test_an_interactive_job_is_as_small_as_the_settings_say(tmp_path_factory: pytest.TempPathFactory) -> None:
    settings = settings_for(tmp_path_factory.mktemp("urgent"), max_interactive_count=4, max_count=10)
    app = create_app(settings, queue=NotingQueue(), live_state=DictLiveState())
    register(app.state.services.store, card(), mask_card())
    asked = {"priority": "interactive"}
    with TestClient(app) as client:
        assert client.post("/generate", json={**GOOD, **asked, "count": 4}).status_code == 202
        assert client.post("/generate", json={**GOOD, "count": 5}).status_code == 202
        # masks without a count are one twin each
        mask = {"png": base64.b64encode(png(Image.new("L", (64, 64), 1))).decode()}
        body = {"model": "tissue", "mask": [mask] * 5, "mask_encoding": "index", **asked}
        [fault] = client.post("/generate", json=body).json()["errors"]
        assert fault["pointer"] == "/count"
        assert "count is 5: it must be 1 to 4" in fault["detail"]
        assert client.post("/generate", json={**body, "mask": [mask] * 4}).status_code == 202
        # where the service allows no more anyhow, leaving priority out would not help
        [fault] = client.post("/generate", json={**GOOD, "count": 11}).json()["errors"]
        assert "several jobs" in fault["detail"]


def test_the_services_own_limits_hold_beside_the_cards(tmp_path_factory: pytest.TempPathFactory) -> None:
    settings = settings_for(tmp_path_factory.mktemp("tight"), max_count=10, max_steps=20, max_prompt_chars=5)
    app = create_app(settings, queue=NotingQueue(), live_state=DictLiveState())
    register(app.state.services.store, card())
    with TestClient(app) as client:
        body = {"model": "aerial", "prompt": "abcdef", "count": 11, "steps": 21}
        details = " ".join(fault["detail"] for fault in client.post("/generate", json=body).json()["errors"])
        assert "1 to 10" in details
        assert "1 to 20" in details
        assert "at most 5" in details
        fits = client.post("/generate", json={"model": "aerial", "prompt": "abc", "count": 10})
        assert fits.json()["parameters"]["steps"] == 20
