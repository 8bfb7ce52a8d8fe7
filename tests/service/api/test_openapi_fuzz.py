"""Every operation of the OpenAPI description, called by the hundred with what it says is right and what it says is
wrong.

Whatever comes, no answer is a fault of ours, each has a declared status, content type and body, and each error is a
problem. What is tried is the same in every run; FUZZ_EXAMPLES=200 tries more of it than the ordinary run's few.
"""

from __future__ import annotations

import itertools
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from schemathesis.python import asgi
from schemathesis.specs.openapi.checks import positive_data_acceptance

from service.auth.api_key import ApiKey, KeyText
from service.kit.tenants import DEFAULT_TENANT
from service.masks.uploads import upload_id
from service.store import keys
from tests.service.api.describing import (
    SLUGS,
    WORDS,
    allowed_by_the_cards,
    described,
    door,
    schema_of,
    without_keys,
)
from tests.service.api.population import (
    DATASET,
    JOBS,
    MASK,
    RUNS,
    Population,
    populate,
)

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "8"))
WHAT_GOES_TOGETHER = (
    "/generate",
    "/uploads",
    "/datasets",
    "/exports",
    "/augmentations",
    "/trainings",
    "/models",
    "/models/{model}",
    "/models/{model}/aliases/{alias}",
    "/models/{model}/promote",
    "/models/{model}/share",
    "/models/{model}/unshare",
)
"""Operations of which a schema says what a body looks like, and a model's card or a dataset what it may be."""
GOOD: dict[str, list[dict[str, Any]]] = {
    "POST /exports": [
        {"sources": [{"dataset": DATASET}], "format": "voc", "callback_url": "https://receiver.example/hook"},
        {
            "sources": [{"job": JOBS["succeeded"]}, {"dataset": f"{DATASET}@1"}],
            "format": "folders",
            "splits": {"train": 1},
        },
    ],
    "POST /augmentations": [
        {"dataset": DATASET, "model": "tissue", "count": 2, "dry_run": True},
        {
            "dataset": DATASET,
            "model": "aerial",
            "count": 2,
            "balance": "even",
            "callback_url": "https://receiver.example/hook",
        },
    ],
    "POST /trainings": [
        {"system": "cosimgen", "dataset": DATASET, "name": "own-scenes", "callback_url": "https://receiver.example/h"},
        {"system": "siamese-diffusion", "dataset": DATASET, "name": "polyp-scenes", "fit": "stretch", "dry_run": True},
    ],
}
"""Bodies that name what there is, which none that is drawn would."""
HEARD: dict[str, tuple[dict[str, str], str]] = {
    "GET /jobs/{job}/events": ({"job": JOBS["succeeded"]}, "5.4.0.succeeded"),
    "GET /exports/{export}/events": ({"export": RUNS["exports"]["succeeded"]}, "3.3.succeeded"),
    "GET /augmentations/{augmentation}/events": ({"augmentation": RUNS["augmentations"]["cancelled"]}, "0.3.cancelled"),
    "GET /trainings/{training}/events": ({"training": RUNS["trainings"]["cancelled"]}, "0.cancelled.0-0"),
    "GET /datasets/{name}/{version}/events": ({"name": DATASET, "version": "1"}, "3.3.succeeded"),
}
"""Of each stream one that has ended, and the id of its last event."""
_turns: defaultdict[tuple[str, bool], itertools.count[int]] = defaultdict(itertools.count)
"""How many requests, good or not, each operation has had."""
Case = Any
Counted = Counter[tuple[str, int]]


@pytest.fixture(scope="module")
def population(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Population]:
    population = populate(tmp_path_factory.mktemp("fuzz"))
    door.app = population.app
    yield population
    asgi.shutdown_lifespans()


@pytest.fixture(scope="module")
def counted() -> Counted:
    """How often each operation answered with each status."""
    return Counter()


def check(case: Case, population: Population, counted: Counted, **options: Any) -> Any:
    """Calls, and holds the answer to the description; the answer."""
    answer = case.call(headers=options.get("headers"))
    counted[case.operation.label, answer.status_code] += 1
    for name in ("job", "export", "augmentation", "training"):
        population.restore(case.path_parameters.get(name, ""))
    population.restore(population.dataset)
    case.validate_response(answer, **options)
    if answer.status_code >= 400:
        problem = answer.json()
        assert answer.headers["content-type"] == ["application/problem+json"]
        assert problem["status"] == answer.status_code
        assert problem["type"].removeprefix("/problems/") in SLUGS
        assert problem["detail"]
        assert problem["title"]
        assert problem["instance"].startswith("/")
    return answer


open_api = schema_of(without_keys(described()), examples=EXAMPLES)


@open_api.parametrize()
def test_every_operation_answers_as_it_is_described(case: Case, population: Population, counted: Counted) -> None:
    # Which parameters go with which model, and what is a mask, no schema says; what that leaves is tried below.
    card_decides = case.operation.path in WHAT_GOES_TOGETHER
    lead_somewhere(case, population)
    check(case, population, counted, excluded_checks=[positive_data_acceptance] if card_decides else [])


def lead_somewhere(case: Case, population: Population) -> None:
    """Makes every other good request for an object one for an object that there is, by its link, gives every other job
    an Idempotency-Key of its own, and asks streams that have ended for what comes after; and every fourth body that is
    wrong is no JSON at all, which no schema could draw."""
    if case.meta is None:
        return
    good = case.meta.generation.mode.is_positive
    turn = next(_turns[case.operation.label, good])
    if not good:
        if case.media_type == "application/json" and case.method == "POST" and turn % 4 == 0:
            case.body = b'{"model": '
        return
    if case.operation.label in GOOD and turn % 4 == 1:
        case.body, case.media_type = (
            GOOD[case.operation.label][turn // 4 % len(GOOD[case.operation.label])],
            "application/json",
        )
    if case.operation.label in HEARD and turn % 4 == 1:
        path, case.headers["last-event-id"] = HEARD[case.operation.label]
        case.path_parameters.update(path)
    links = population.links.get(case.operation.label)
    if links and case.method == "GET" and turn % 2:
        link = links[turn // 2 % len(links)]
        case.path_parameters.update(link.path)
        case.query = dict(link.query)
        ranges = WORDS["header.range"][1]
        case.headers.update({"range": ranges[turn // 4 % len(ranges)]} if turn % 4 == 1 else {})
        case.headers.update({"if-none-match": link.etag} if turn % 8 == 3 else {})
    if "idempotency-key" in case.headers and turn % 2:
        case.headers["idempotency-key"] = f"{turn}-{case.headers['idempotency-key']}"[:255]


card_api = schema_of(allowed_by_the_cards(), mode="positive", examples=4 * EXAMPLES)


@card_api.parametrize()
def test_whatever_a_card_allows_becomes_a_job_as_it_was_asked_for(
    case: Case, population: Population, counted: Counted
) -> None:
    answer = check(case, population, counted)
    assert answer.status_code in (200, 202) or case.method != "POST"
    if case.method == "POST":
        made, asked = answer.json()["parameters"], case.body
        for member in {
            "prompt",
            "count",
            "seed",
            "steps",
            "guidance_scale",
            "guidance_target",
            "eta",
            "size",
            "priority",
            "layout",
        } & asked.keys():
            assert made[member] == asked[member]
        masks = asked.get("mask", [])
        masks = masks if isinstance(masks, list) else [masks]
        assert made["count"] == asked.get("count", len(masks))
        assert made["mask"] == ([{"upload": upload_id(MASK)}] * len(masks) or None)
        assert made["model"].partition("@")[0] == asked["model"].partition("@")[0]


def test_what_was_tried_reached_everything(counted: Counted) -> None:
    """So that no run is good because every request was refused at the door."""
    if not counted:
        pytest.skip("the operations were not called in this run")
    reached = {
        "POST /generate": {200, 202, 400, 404, 409, 415, 422},
        "POST /uploads": {201, 415, 422},
        "GET /uploads": {200, 422},
        "DELETE /uploads/{upload}": {204, 404},
        "GET /jobs": {200, 422},
        "GET /jobs/{job}": {200, 404},
        "DELETE /jobs/{job}": {200, 202, 204, 404},
        "POST /jobs/{job}/cancel": {200, 202, 404, 409},
        "POST /jobs/{job}/retry": {202, 404, 409},
        "GET /jobs/{job}/samples": {200, 404, 422},
        "GET /jobs/{job}/events": {200, 204, 404},
        "GET /jobs/{job}/manifest": {200, 404},
        "GET /jobs/{job}/archive": {200, 404},
        "GET /models": {200},
        "GET /models/{model}": {200, 404},
        "GET /models/{model}/archive": {200, 404},
        "GET /models/{model}/aliases": {200, 404},
        "GET /models/{model}/aliases/{alias}": {200, 404},
        "PUT /models/{model}/aliases/{alias}": {200, 404, 415, 422},
        "GET /models/{model}/shares": {200, 404, 409},
        "POST /models/{model}/share": {404, 409, 415, 422},
        "POST /models/{model}/promote": {404, 409, 422},
        "DELETE /models/{model}": {404, 409, 422},
        "POST /models": {415, 422},
        "GET /problems/{slug}": {200, 404},
        "POST /datasets": {202, 415, 422},
        "GET /datasets": {200},
        "GET /datasets/{name}": {200, 404},
        "GET /datasets/{name}/{version}": {200, 404},
        "GET /datasets/{name}/{version}/events": {200, 204, 404},
        "GET /datasets/{name}/{version}/report": {200, 404},
        "GET /datasets/{name}/{version}/statistics": {200, 404},
        "POST /datasets/{name}/{version}/cancel": {404, 409},
        "DELETE /datasets/{name}/{version}": {204, 404},
        "POST /exports": {202, 400, 415, 422},
        "GET /exports": {200, 422},
        "GET /exports/{export}": {200, 404},
        "GET /exports/{export}/events": {200, 204, 404},
        "GET /exports/{export}/files": {200, 404, 409},
        "POST /exports/{export}/cancel": {200, 404, 409},
        "DELETE /exports/{export}": {204, 404},
        "POST /augmentations": {200, 202, 400, 415, 422},
        "GET /augmentations": {200, 422},
        "GET /augmentations/{augmentation}": {200, 404},
        "GET /augmentations/{augmentation}/events": {200, 204, 404},
        "GET /augmentations/{augmentation}/samples": {200, 404},
        "POST /augmentations/{augmentation}/cancel": {200, 404},
        "DELETE /augmentations/{augmentation}": {204, 404},
        "POST /trainings": {200, 202, 400, 415, 422},
        "GET /trainings": {200, 422},
        "GET /trainings/{training}": {200, 404},
        "GET /trainings/{training}/events": {200, 204, 404},
        "GET /trainings/{training}/checkpoints": {200, 404},
        "POST /trainings/{training}/pause": {200, 404, 409},
        "POST /trainings/{training}/resume": {200, 404, 409},
        "POST /trainings/{training}/cancel": {200, 404},
        "POST /trainings/{training}/retry": {202, 404, 409},
        "DELETE /trainings/{training}": {204, 404},
        "GET /objects/{key}": {200, 206, 304, 403, 416},
        "GET /twins/{job}/{index}/{kind}.png": {200, 206, 304, 403, 416},
    }
    missed = {
        label: unseen
        for label, statuses in reached.items()
        if (unseen := statuses - {status for name, status in counted if name == label})
    }
    assert missed == {}


KEY = KeyText.new()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Population]:
    """The same behind API keys, of which :data:`KEY` is one."""
    population = populate(tmp_path_factory.mktemp("guarded"))
    record = ApiKey(id=KEY.id, tenant=DEFAULT_TENANT, secret_sha256=KEY.sha256(), created_at=datetime.now(UTC))
    population.store.put(keys.api_key(KEY.id), record.model_dump_json().encode())
    population.app.state.services.authenticator.required = "true"
    door.app = population.app
    yield population
    asgi.shutdown_lifespans()


keyed_api = schema_of(described(), examples=max(2, EXAMPLES // 4))


@keyed_api.parametrize()
def test_with_a_key_all_is_the_same_and_without_one_nothing_answers(case: Case, guarded: Population) -> None:
    # Of each that is answered, schemathesis asks again without a key, and with one of its own making.
    lead_somewhere(case, guarded)
    card_decides = case.operation.path in WHAT_GOES_TOGETHER
    excluded = [positive_data_acceptance] if card_decides else []
    check(case, guarded, Counter(), headers={"Authorization": f"Bearer {KEY.text()}"}, excluded_checks=excluded)


def test_what_needs_a_key_answers_no_other_caller(guarded: Population) -> None:
    wrong = {"none": None, "another": f"Bearer {KeyText.new().text()}", "cut": f"Bearer {KEY.text()[:-1]}"}
    asked = 0
    for operation in keyed_api.get_all_operations():
        operation = operation.ok()
        for given in wrong.values() if operation.definition.raw.get("security") else ():
            names = re.findall(r"{(\w+)}", operation.path)
            there = {"job": JOBS["succeeded"], "model": "aerial", "name": DATASET, "version": "1", "upload": "0" * 64}
            there |= {"export": RUNS["exports"]["succeeded"], "augmentation": RUNS["augmentations"]["queued"]}
            there |= {"training": RUNS["trainings"]["queued"]}
            there["alias"] = "stable"
            case = operation.Case(path_parameters={name: there[name] for name in names})
            headers = {} if given is None else {"Authorization": given}
            answer = case.call(headers=headers)
            case.validate_response(answer, headers=headers, excluded_checks=[positive_data_acceptance])
            assert answer.status_code == 401, operation.label
            assert answer.headers["www-authenticate"] == ["Bearer"], operation.label
            asked += 1
    assert asked >= 3 * 47
