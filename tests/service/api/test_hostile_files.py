"""Bent files by the thousand on every way in: each is refused with a problem, or read just as Pillow reads it.

They are drawn from a seed; FUZZ_FILES=100000 FUZZ_SEED=2 tries others, and more of them.
"""

from __future__ import annotations

import base64
import io
import json
import os
import random
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model_store.masks.resize import majority_resize
from service.masks.uploads import upload_id
from service.store import keys
from tests.service.api.places import astray, listing
from tests.service.api.population import Population, populate
from tests.service.api.wire import PROBLEM, Answer, Wire
from tests.service.masks.bending import bases
from tests.service.masks.hostile import (
    Bad,
    bent,
    bombs,
    cut_at_every_border,
    other_formats,
    readings,
)
from tests.stored_twins import input_key

SEED = int(os.environ.get("FUZZ_SEED", "20260131"))
FILES = int(os.environ.get("FUZZ_FILES", "1000"))
PNG = {"Content-Type": "image/png"}
JSON = {"Content-Type": "application/json"}
MAX_MEMORY_BYTES = 200 << 20


@pytest.fixture(scope="module")
def population(tmp_path_factory: pytest.TempPathFactory) -> Population:
    return populate(tmp_path_factory.mktemp("hostile") / "place" / "data")


@pytest.fixture(scope="module")
def wire(population: Population) -> Iterator[Wire]:
    with Wire(population.app) as wire:
        yield wire


@pytest.fixture(autouse=True)
def nothing_goes_astray(population: Population) -> Iterator[None]:
    around = population.settings.data_dir.parents[1]
    before = listing(around)
    yield
    assert astray(listing(around) - before, "place/data/store") == []
    assert list((population.settings.data_dir / "store" / ".incoming").iterdir()) == []


def give(wire: Wire, mask: Any, **members: Any) -> Answer:
    body = {"model": "tissue", "mask": mask, "count": 2, **members}
    return wire.ask("POST", "/generate", headers=JSON, body=json.dumps(body).encode())


def along(data: bytes) -> dict[str, str]:
    return {"png": base64.b64encode(data).decode()}


def stored_mask(population: Population, job: str) -> np.ndarray:
    with Image.open(io.BytesIO(population.store.get(input_key(population.store, job, 0)))) as image:
        return np.asarray(image)


def fault_of(answer: Answer, pointer: str) -> str | None:
    """What is wrong with an answer that is to be a refusal of what lies at ``pointer``."""
    if (answer.status, answer.headers["content-type"]) != (422, PROBLEM):
        return f"{answer.status} {answer.headers['content-type']}"
    problem = answer.json()
    if [fault["pointer"] for fault in problem["errors"]] != [pointer] or not 20 <= len(problem["detail"]) <= 1500:
        return f"told as {problem}"
    return None


def fault_of_upload(population: Population, wire: Wire, data: bytes) -> str | None:
    """What is wrong with how ``POST /uploads`` takes a file: refused, or kept to the byte."""
    answer = wire.ask("POST", "/uploads", headers=PNG, body=data)
    if answer.status != 201:
        return fault_of(answer, "")
    kept = answer.json()
    if kept["upload"] != upload_id(data) or population.store.get(keys.upload("default", kept["upload"])) != data:
        return "kept as something else"
    shapes = {reading.shape for reading in readings(data)}
    return f"said to be {kept['width']} px" if shapes and shapes != {(kept["height"], kept["width"])} else None


def fault_of_mask(population: Population, answer: Answer, data: bytes) -> str | None:
    """What is wrong with how ``POST /generate`` takes a mask: refused, or read as Pillow reads it."""
    if answer.status != 202:
        return fault_of(answer, "/mask")
    stored = stored_mask(population, answer.json()["id"])
    found = [majority_resize(reading, 64) for reading in readings(data) if reading.max() <= 3]
    return None if any(np.array_equal(stored, reading) for reading in found) else "read as something else"


def check_files(population: Population, wire: Wire, files: Iterator[Bad]) -> Counter[int]:
    """How often masks were answered with which status."""
    counted: Counter[int] = Counter()
    faults = []
    for number, (name, data) in enumerate(files):
        fault = fault_of_upload(population, wire, data)
        if fault:
            faults.append(f"{name}: as an upload {fault}")
        answer = give(wire, along(data))
        counted[answer.status] += 1
        if fault := fault_of_mask(population, answer, data):
            faults.append(f"{name}: as a mask {fault}")
        if number % 10 == 0:
            # Of what is among the uploads the same is said as of what comes along; of what is not, that it is not.
            named = give(wire, {"upload": upload_id(data)})
            if named.status != answer.status or (fault := fault_of_mask(population, named, data)):
                faults.append(f"{name}: by its id {fault or named.status}")
    assert not faults, "\n".join(faults[:20])
    return counted


def test_what_is_bent_is_refused_or_read_as_pillow_reads_it(population: Population, wire: Wire) -> None:
    counted = check_files(population, wire, bent(SEED, FILES))
    assert counted[422] > FILES / 2, counted
    assert counted[202] > FILES / 20, counted


def test_what_is_cut_at_any_border_is_refused(population: Population, wire: Wire) -> None:
    counted = check_files(population, wire, cut_at_every_border())
    # Without its last chunk's end a file is not whole; nothing is read further than that.
    assert counted[202] == 0, counted
    assert counted[422] > 200, counted


def test_other_formats_are_refused_and_what_only_follows_or_is_written_in_a_mask_is_let_be(
    population: Population, wire: Wire
) -> None:
    files = list(other_formats())
    good = sum(name.startswith(("a PNG that goes on as", "a PNG with")) for name, _ in files)
    assert check_files(population, wire, iter(files)) == {422: len(files) - good, 202: good}


def test_in_a_list_each_bad_one_is_told_by_its_number(population: Population, wire: Wire) -> None:
    chance = random.Random(SEED)
    files = [data for _, data in bent(SEED + 1, 300)]
    bad = [give(wire, along(data)).status == 422 for data in files]
    assert 0 < sum(bad) < len(files)
    for _ in range(40):
        picked = [chance.randrange(len(files)) for _ in range(12)]
        masks = [files[number] for number in picked]
        answer = give(wire, [along(mask) for mask in masks])
        # A file that is given twice is told of once.
        expected = [
            f"/mask/{place}" for place, mask in enumerate(masks) if bad[picked[place]] and mask not in masks[:place]
        ]
        told = [fault["pointer"] for fault in answer.json().get("errors", ())]
        assert (answer.status, told) == ((422, expected) if expected else (202, []))


def test_a_bomb_goes_off_nowhere(population: Population, wire: Wire) -> None:
    tracemalloc.start()
    try:
        for name, data in bombs():
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            uploaded = wire.ask("POST", "/uploads", headers=PNG, body=data)
            given = give(wire, along(data))
            grown = tracemalloc.get_traced_memory()[1] - before
            assert grown < MAX_MEMORY_BYTES, f"{name} took {grown >> 20} MiB"
            for answer in (uploaded, given):
                assert answer.status in (201, 202, 422), name
                assert answer.status != 422 or answer.headers["content-type"] == PROBLEM
    finally:
        tracemalloc.stop()


def bodies(seed: int, count: int) -> Iterator[bytes]:
    """Bodies of ``POST /generate``: good ones with bytes and values bent."""
    chance = random.Random(seed)
    good = [
        {
            "model": "aerial",
            "classes": ["water", "houses"],
            "count": 2,
            "seed": 7,
            "eta": 0.5,
            "name": "a \u00e9 \U0001f600",
        },
        {
            "model": "tissue",
            "prompt": "glands",
            "count": 1,
            "guidance_target": "text",
            "pairs": False,
            "priority": "normal",
        },
        {
            "model": "tissue",
            "mask": [along(bases()["4 bits"])],
            "mask_encoding": "index",
            "guidance_scale": 1.5,
            "size": 64,
        },
    ]
    values = [
        "null", "true", "-1", "0", "1e400", "-0.0", "8.0", "1" + "0" * 400, "NaN",
        "-Infinity", '""', '"\\u0000"', '"\\ud800"', "[]",
        "{}", "[[]]", '[{"png":7}]', '{"upload":"../../x"}', '{"png":"' + "A" * 5000 + '"}', "[" * 500 + "]" * 500,
        '"' + "x" * 5000 + '"',
    ]  # fmt: skip
    for number in range(count):
        body = dict(good[number % len(good)])
        text = json.dumps(body).encode("utf-8", "surrogatepass")
        how = number // len(good) % 6
        if how == 0:
            text = text[: chance.randrange(len(text))]
        elif how == 1:
            place = chance.randrange(len(text))
            text = text[:place] + chance.randbytes(chance.randint(1, 4)) + text[place + chance.randint(0, 4) :]
        elif how == 2:
            member = chance.choice(list(body))
            text = json.dumps({**body, member: "@"}).replace('"@"', chance.choice(values)).encode()
        elif how == 3:
            member = chance.choice(("mask", "callback_url", "name", "steps", "extra", "__proto__", "constructor"))
            text = (json.dumps(body)[:-1] + f', "{member}": {chance.choice(values)}}}').encode()
        elif how == 4:
            text = json.dumps(body).encode(chance.choice(("utf-16", "utf-32", "utf-8-sig", "utf-16-be", "cp037")))
        else:
            text = chance.choice(
                (b"", b"null", b"[]", b'"x"', b"\xff", b"{" * 3000, b'{"model":' * 400, text + text, b" " * 9999 + text)
            )
        yield text


def test_a_body_that_is_bent_is_refused_or_understood(population: Population, wire: Wire) -> None:
    counted: Counter[int] = Counter()
    for body in bodies(SEED, max(400, FILES // 4)):
        answer = wire.ask("POST", "/generate", headers=JSON, body=body)
        counted[answer.status] += 1
        assert answer.status in (202, 400, 404, 422), body[:300]
        if answer.status != 202:
            assert answer.headers["content-type"] == PROBLEM
            assert answer.json()["status"] == answer.status
            assert len(answer.body) < 20_000
    assert {202, 400, 422} <= counted.keys(), counted


GENERATE = {"model": "aerial", "classes": ["water"], "count": 1}
ENDLESS: dict[str, Callable[[], dict[str, Any]]] = {
    "members": lambda: {f"m{number}": 1 for number in range(300_000)},
    "classes": lambda: {**GENERATE, "classes": [f"c{number}" for number in range(300_000)]},
    "classes that are none": lambda: {**GENERATE, "classes": list(range(300_000))},
    "masks": lambda: {"model": "tissue", "mask": [{"png": "AAAA"}] * 200_000},
    "masks that are none": lambda: {"model": "tissue", "mask": list(range(300_000))},
    "a prompt": lambda: {"model": "aerial", "count": 1, "prompt": "a " * 3_000_000},
    "a name": lambda: {**GENERATE, "name": "n" * 6_000_000},
    "a model": lambda: {**GENERATE, "model": "m" * 6_000_000},
    "an address": lambda: {**GENERATE, "callback_url": "https://" + "a" * 6_000_000},
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_an_endless_request_is_refused_in_few_words(wire: Wire, kind: str) -> None:
    """Bodies of megabytes, within the limit, each of which once took seconds to be refused, or megabytes to say why."""
    answer = wire.ask("POST", "/generate", headers=JSON, body=json.dumps(ENDLESS[kind]()).encode())
    assert answer.status in (404, 422)
    assert answer.headers["content-type"] == PROBLEM
    assert len(answer.body) < 2_000
    assert len(answer.json().get("errors", ())) <= 2


@pytest.mark.parametrize("length", ["9" * 5000, "0" * 5000 + "9" * 30, "99999999999999999999"])
def test_an_announced_length_may_be_any_number(wire: Wire, length: str) -> None:
    answer = wire.ask("POST", "/generate", headers={**JSON, "Content-Length": length}, body=b"{}")
    assert (answer.status, answer.headers["content-type"]) == (413, PROBLEM)
    assert len(answer.body) < 500
