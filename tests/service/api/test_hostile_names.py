"""Names that lead elsewhere, or that break what they are written into, wherever a request may name something.

Each is put into every path parameter, query parameter, header and member of the description, and into paths of its own.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_from_bytes, urlencode

import pytest

from service.masks.uploads import upload_id
from service.store import keys
from service.store.opening import link_secret
from service.store.signing import signature
from tests.service.api.places import astray, listing
from tests.service.api.population import (
    DATASET,
    JOBS,
    RUNS,
    SPARE,
    Population,
    populate,
)
from tests.service.api.wire import PROBLEM, Answer, Wire

SECRET = "what-no-answer-may-hold"
ENDED = JOBS["succeeded"]
GOOD = {
    "job": ENDED,
    "model": "aerial",
    "slug": "unknown-job",
    "key": keys.job_image(ENDED, 0, "ab" * 32),
    "index": "0",
    "kind": "image",
}
GOOD |= {
    "name": DATASET,
    "version": "1",
    "export": RUNS["exports"]["succeeded"],
    "augmentation": RUNS["augmentations"]["queued"],
    "training": RUNS["trainings"]["queued"],
    "alias": "stable",
    "upload": upload_id(SPARE),
}

NAMES = [
    "..", ".", "../..", "../../../etc/passwd", "..\\..\\secret", "....//....//secret", "/etc/passwd", "//etc/passwd",
    "C:\\secret",
    "\\\\host\\share", "file:///etc/passwd", "~", "~root/.ssh/id_rsa", "\0", "a\0b", f"{ENDED}\0", f"{ENDED}\n",
    f" {ENDED}", f"{ENDED} ",
    f"{ENDED}/", f"{ENDED}/../{JOBS['queued']}", f"{ENDED}.json", ENDED.upper(), ENDED.replace("j", "\u0458", 1),
    ENDED.replace("0", "\uff10"), ENDED.replace("0", "\u0660"), ENDED[:-1], ENDED + "0", ENDED.replace("0",
    "o"), "j" + "0" * 10_000,
    "\u2024\u2024/\u2024\u2024/secret", "\uff0e\uff0e\uff0fsecret", "..\u2215secret", "..\u2044..", "\u202e3gnp.",
    "a\u0300" * 60, "\ufeff", "\U0001f4a3",
    "\r\nSet-Cookie: a=b", "a\r\n\r\n<html>", "; rm -rf /", "$(id)", "`id`", "| id", "%s%n%x", "{0.__class__}",
    "{{7*7}}", "${jndi:ldap://x}",
    "' OR 1=1 --", "<script>alert(1)</script>", "__proto__", "__class__", "CON", "nul.png", "aux", ".incoming",
    ".incoming/x", "secret",
    "../secret", "../link-secret", "../../secret", "spec.json", "-rf", "*", "?", "[a-z]",
    "a" * 256, "a/" * 300, "\x7f", "\x1b[31m",
    "latest", "aerial@../1.0.0", "aerial@", "@", "@1.0.0", "aerial@1.0.0/../../x", "%", "%zz", "%2e%2e%2f",
    "%252e%252e%252f",
    "%00", "%c0%ae%c0%ae/",
    "9" * 5000, "-1", "1e9", "NaN", "0x10", "\u0663", "true", "null", "[]", "",
]  # fmt: skip


def drawn(seed: int, count: int) -> Iterator[str]:
    """Names put together of what is in :data:`NAMES`."""
    chance = random.Random(seed)
    for _ in range(count):
        yield "".join(
            chance.choice(("", "/", "\\", "..", "%2f", "\0")) + chance.choice(NAMES)[:40]
            for _ in range(chance.randint(2, 4))
        )


ALL = [*NAMES, *drawn(20260131, 20)]


def in_a_path(name: str) -> list[str]:
    """The ways of writing a name into a path: as one part of it, as it stands, encoded twice, and in overlong UTF-8."""
    whole = name.encode("utf-8", "surrogatepass")
    overlong = quote_from_bytes(whole.replace(b".", b"\xc0\xae").replace(b"/", b"\xc0\xaf"), safe="")
    ways = [quote(name, safe=""), quote(name, safe="/"), quote(quote(name, safe=""), safe=""), overlong]
    return list(dict.fromkeys(ways))


@pytest.fixture(scope="module")
def population(tmp_path_factory: pytest.TempPathFactory) -> Population:
    place = tmp_path_factory.mktemp("names") / "place"
    for folder in (place.parent, place, place / "data", place / "data" / "store" / ".incoming"):
        folder.mkdir(exist_ok=True, parents=True)
        (folder / "secret").write_text(SECRET)
    return populate(place / "data")


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


def operations(population: Population) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in population.app.openapi()["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def filled(path: str, **names: str) -> str:
    """The path with its parameters in place, good ones where none are given."""
    return re.sub(r"{(\w+)}", lambda match: names.get(match[1], quote(GOOD[match[1]])), path)


def check(answer: Answer, what: str) -> int:
    """Holds an answer to what every answer must be; its status."""
    assert answer.status < 500, what
    assert SECRET.encode() not in answer.body, what
    assert not any("\n" in value or "\r" in value for value in answer.headers.values()), what
    assert "set-cookie" not in answer.headers, what
    if answer.status >= 400:
        assert answer.headers["content-type"] == PROBLEM, what
        assert answer.json()["status"] == answer.status
        assert len(answer.body) < 40_000, what
    return answer.status


def test_in_a_path_no_name_leads_anywhere(population: Population, wire: Wire) -> None:
    counted: Counter[int] = Counter()
    for method, path, _ in operations(population):
        for parameter in re.findall(r"{(\w+)}", path):
            for name in ALL:
                for way in in_a_path(name):
                    answer = wire.ask(method, filled(path, **{parameter: way}))
                    status = check(answer, f"{method} {path} with {way[:200]}")
                    # An empty part, or one that the framework takes apart, may be another path; a good one is none of
                    # these.
                    # A model is deleted by its version, so a name alone is refused for its form.
                    formless = status in (415, 422) and path.startswith("/models/")
                    assert (
                        status in (403, 404, 405)
                        or formless
                        or "@" in name
                        or name in ("", "latest")
                        or path == "/jobs/{job}"
                    ), (path, way)
                    counted[status] += 1
    assert counted[404] > 1000, counted
    assert counted[403] > 100, counted


def test_no_path_leads_out_of_what_is_served(population: Population, wire: Wire) -> None:
    roots = [
        "/",
        "/jobs/",
        "/objects/",
        "/models/",
        "/problems/",
        "/static-offline-docs/",
        "/docs/",
        "/static-offline-docs/../",
    ]
    methods = cycle(("GET", "HEAD", "GET", "DELETE", "GET", "POST"))
    for root in roots:
        for name in ALL:
            for way, method in zip(in_a_path(name), methods, strict=False):
                answer = wire.ask(method, root + way)
                assert check(answer, f"{method} {root}{way[:200]}") in (
                    200,
                    403,
                    404,
                    405,
                    415,
                    *((422,) if root == "/models/" else ()),
                )
                if answer.status == 200:
                    assert root.startswith(("/jobs", "/docs", "/static")), (root, way)
                    assert way.strip("/.") in ("", *GOOD.values()), (root, way)


def test_a_link_that_is_signed_still_opens_no_more_than_a_key(population: Population, wire: Wire) -> None:
    """As if the secret had leaked: what is no key is no file."""
    secret = link_secret(population.settings)
    for name in ALL:
        for key in (name, f"jobs/{name}", f"jobs/{ENDED}/images/{name}"):
            query = {"expires": 2**33, "signature": signature(secret, key.encode(errors="replace").decode(), 2**33)}
            answer = wire.ask("GET", f"/objects/{quote(key, safe='')}?{urlencode(query)}")
            assert check(answer, f"a link to {key[:200]!r}") in (400, 403, 404)


def test_in_a_query_no_name_does_harm(population: Population, wire: Wire) -> None:
    asked = 0
    for method, path, operation in operations(population):
        for parameter in operation.get("parameters", ()):
            if parameter["in"] != "query":
                continue
            for name in ALL:
                for way in in_a_path(name)[::2]:
                    status = check(
                        wire.ask(method, f"{filled(path)}?{parameter['name']}={way}"),
                        f"{path}?{parameter['name']}={way[:200]}",
                    )
                    # An empty value is taken for none; a link that is not signed opens nothing whatever else is wrong.
                    expected = {
                        "/objects": (403,),
                        "/twins": (403,),
                        "/datasets": (200, 415, 422),
                        "/models": (200, 415, 422),
                    }.get(f"/{path.split('/')[1]}", (200, 422))
                    assert status in expected
                    # a dataset's name may be much, and a page may begin behind any
                    free = not path.startswith(("/jobs", "/exports", "/augmentations"))
                    assert status == 422 or name == "" or free or name.isdigit()
                    asked += 1
    assert asked > 500


HEADERS = (
    "Accept", "Accept-Encoding", "Authorization", "Content-Encoding", "Content-Type", "Cookie", "Expect",
    "Forwarded", "Host",
    "Idempotency-Key", "If-Modified-Since", "If-None-Match", "Last-Event-ID", "Origin", "Prefer", "Range", "Referer",
    "Traceparent",
    "User-Agent", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Prefix", "X-Http-Method-Override",
)  # fmt: skip


@pytest.mark.parametrize("header", HEADERS)
def test_in_a_header_no_name_does_harm(population: Population, wire: Wire, header: str) -> None:
    body = json.dumps({"model": "aerial", "classes": ["water"], "count": 2, "size": 5}).encode()
    asked = {
        ("GET", f"/jobs/{ENDED}"): (200,),
        ("GET", f"/jobs/{ENDED}/events"): (200,),
        ("GET", f"/objects/{GOOD['key']}"): (403,),
        ("POST", "/generate"): (415, 422),
        ("GET", "/nowhere"): (404,),
    }
    turns = cycle(asked.items())
    for name in ALL:
        # What no server lets through is left out: line ends and NUL.
        value = re.sub(rb"[\r\n\0]", b" ", name.encode("utf-8", "surrogatepass"))
        for (method, target), expected in (next(turns), next(turns)):
            sent = {"Content-Type": "application/json", header: value}
            answer = wire.ask(method, target, headers=sent, body=body if method == "POST" else b"")
            if header == "Host":
                expected = (421,)
            elif header == "Origin" and method == "POST":
                expected = (403,)
            assert check(answer, f"{target} with {header}: {value[:200]!r}") in expected
    # Nothing was made by any of these.
    assert len(list(population.repository.jobs())) == len(JOBS)


def members() -> Iterator[tuple[str, Any]]:
    """Where a request's body names something: how, and a function of the name that gives the body."""
    aerial = {"model": "aerial", "classes": ["water"], "count": 2}
    tissue = {"model": "tissue", "count": 2}
    for member in (
        "model",
        "name",
        "callback_url",
        "mask_encoding",
        "guidance_target",
        "priority",
        "layout",
        "seed",
        "size",
    ):
        yield member, lambda name, member=member: {**aerial, member: name}
    yield "prompt", lambda name: {"model": "aerial", "prompt": name, "count": 2}
    yield "classes", lambda name: {**aerial, "classes": ["water", name]}
    yield "mask", lambda name: {**tissue, "mask": name}
    yield "mask.png", lambda name: {**tissue, "mask": {"png": name}}
    yield "mask.upload", lambda name: {**tissue, "mask": [{"upload": name}]}
    yield "a member of mask", lambda name: {**tissue, "mask": {name: "x"}}
    yield "a member", lambda name: {**aerial, name: "x"}


@pytest.mark.parametrize(("place", "body_with"), list(members()), ids=[place for place, _ in members()])
def test_in_a_body_no_name_does_harm(population: Population, wire: Wire, place: str, body_with: Any) -> None:
    for name in [*ALL, "\ud800", "\udfff\ud800"]:
        answer = wire.ask(
            "POST", "/generate", headers={"Content-Type": "application/json"}, body=json.dumps(body_with(name)).encode()
        )
        status = check(answer, f"{place}: {name[:200]!r}")
        assert status in ((202, 422) if place in ("name", "prompt") else (404, 422) if place == "model" else (422,)), (
            name[:200]
        )
        if status == 202:
            # What is kept is what was said, and nothing that it is written into is broken by it.
            job = answer.json()["id"]
            view = wire.ask("GET", f"/jobs/{job}").json()
            kept = view["name"] or "" if place == "name" else view["parameters"]["prompt"]
            assert kept == name.strip()
            assert (
                wire.ask("GET", f"/jobs/{job}/archive").headers["content-disposition"]
                == f'attachment; filename="{job}.zip"'
            )
            listed = wire.ask("GET", "/jobs?limit=1").json()["jobs"]
            assert [entry["id"][:11] for entry in listed] <= [job[:11]]


def test_an_idempotency_key_names_no_file(population: Population, wire: Wire, tmp_path: Path) -> None:
    body = json.dumps({"model": "aerial", "classes": ["water"], "count": 2}).encode()
    before = {info.key for info in population.store.list("idempotency/")}
    taken = set()
    for name in ALL:
        value = re.sub(rb"[\r\n\0]", b" ", name.encode("utf-8", "surrogatepass"))
        answer = wire.ask(
            "POST", "/generate", headers={"Content-Type": "application/json", "Idempotency-Key": value}, body=body
        )
        assert check(answer, f"Idempotency-Key: {value[:200]!r}") == (
            202 if re.fullmatch(rb"[!-~]{1,255}", value) else 422
        )
        taken |= {value} if answer.status == 202 else set()
    assert len({info.key for info in population.store.list("idempotency/")} - before) == len(taken) > 30
