"""Every README says what is true of the API: its calls and their fields, metrics and Redis keys exist."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

from service.api.app import create_app
from service.settings import Settings
from tests.readmes import ROOT, Readme, each_readme, sources


@cache
def api() -> dict[str, Any]:
    return create_app(Settings(store_url=(ROOT / "no-such-store").as_uri(), link_secret="0123456789abcdef")).openapi()


def matches(path: str) -> list[str]:
    """The API's paths that ``path`` is one of; either may have ``{...}`` for a part."""
    parts = path.partition("?")[0].rstrip("/").split("/")

    def same(template: str) -> bool:
        others = template.split("/")
        pairs = list(zip(parts, others, strict=False))
        return len(parts) == len(others) and all(a == b or (b.startswith("{") and a) for a, b in pairs)

    return [template for template in api()["paths"] if same(template)]


def call_problem(method: str, path: str, body: str | None = None) -> str | None:
    """What is wrong with a call of the API, or None."""
    if path in ("/docs", "/redoc", "/openapi.json"):
        return None
    calls = [
        api()["paths"][template][method.lower()]
        for template in matches(path)
        if method.lower() in api()["paths"][template]
    ]
    if not calls:
        return "no such call"
    if body is None or not body.startswith("{"):
        return None
    fields = body_fields(calls[0])
    unknown = sorted(json.loads(body).keys() - fields) if fields else []
    return f"takes no {unknown}" if unknown else None


def body_fields(call: dict[str, Any]) -> set[str]:
    """The names that a call's JSON body may have; empty if its schema does not list them."""
    schema = call.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    if "$ref" in schema:
        schema = api()["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return set(schema.get("properties", {}))


def curl_call(words: list[str]) -> tuple[str, str, str | None]:
    """Method, path and body of a ``curl`` command."""
    [url] = [word for word in words[1:] if re.match(r"(https?://|localhost)", word)]
    bodies = [words[place + 1] for place, word in enumerate(words) if word in ("-d", "--data", "--json")]
    sends = bodies or any(word in ("-F", "--form", "--data-binary") for word in words)
    methods = [words[place + 1] for place, word in enumerate(words) if word in ("-X", "--request")]
    path = "/" + re.sub(r"^https?://", "", url).partition("/")[2]
    return (methods or ["POST" if sends else "GET"])[0], path, (bodies or [None])[0]


@each_readme
def test_every_call_of_the_api_exists_and_takes_the_fields_it_is_sent(readme: Readme) -> None:
    calls = [curl_call(words) for words in readme.shell if words[0] == "curl"]
    spans = [found for span in readme.spans if (found := re.match(r"(GET|POST|PUT|PATCH|DELETE) (/\S*)$", span))]
    calls += [(found[1], found[2], None) for found in spans]
    assert {call: problem for call in calls if (problem := call_problem(*call))} == {}


@each_readme
def test_every_metric_and_redis_key_is_in_the_sources(readme: Readme) -> None:
    metrics = {span for span in readme.spans if re.fullmatch(r"twinset_[a-z0-9_]+", span)}
    keys = {span.partition("{")[0] for span in readme.spans if re.fullmatch(r"twinset:\S+", span)}
    stems = {name: re.sub(r"_(total|bucket|count|sum)$", "", name) for name in metrics} | {key: key for key in keys}
    assert [name for name, stem in stems.items() if stem not in sources()] == []
