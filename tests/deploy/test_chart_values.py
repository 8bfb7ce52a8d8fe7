"""Values drawn from the chart's schema: it renders whole or refuses; and no value is there for nothing."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.deploy.chart import (
    BASE,
    VERSIONS,
    Refused,
    Values,
    chart,
    check_schema,
    drawn,
    over_base,
    pods,
    rendered,
    resolve,
    values_schema,
)

pytestmark = pytest.mark.slow
QUICKLY = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    phases=[Phase.generate],  # to make an example smaller takes minutes
)
KEPT = ("store", "broker", "valkey", "secrets", "settings")
"""What most drawn values of contradict each other; they are drawn in a test of their own."""


def test_values_render_to_valid_objects_or_are_refused_with_a_reason() -> None:
    parts = {name: part for name, part in values_schema()["properties"].items() if name not in KEPT}
    values = st.fixed_dictionaries({}, optional={name: drawn(part) for name, part in parts.items()}).map(over_base)
    assert share_rendered(values) > 0.3


def test_stores_brokers_and_secrets_in_any_combination() -> None:
    values = st.fixed_dictionaries({}, optional={name: drawn(values_schema()["properties"][name]) for name in KEPT})
    assert share_rendered(st.one_of(values, values.map(over_base))) > 0.1


def share_rendered(drawn_values: st.SearchStrategy[Values]) -> float:
    """The share of the drawn values that render, all to valid objects; the others are refused with a reason."""
    outcomes = []

    @QUICKLY
    @given(drawn_values)
    def check(values: Values) -> None:
        objects, refusal = render_or_refuse(values)
        outcomes.append(refusal is None)
        assert refusal is None or "execution error at (twinset/templates/validation.yaml" in refusal, values
        for found in objects:
            check_schema(found, VERSIONS[0], VERSIONS[-1])
        assert all(spec["securityContext"]["runAsNonRoot"] for spec in pods(objects).values())

    check()
    return sum(outcomes) / len(outcomes)


def render_or_refuse(values: Values) -> tuple[list[dict[str, Any]], str | None]:
    try:
        return rendered(values), None
    except Refused as refusal:
        return [], str(refusal)


WHERE: dict[str, Values] = {
    "store.accessKeyId": {"store": {"secretAccessKey": "b"}},
    "store.secretAccessKey": {"store": {"accessKeyId": "a"}},
    "broker.existingSecret": {"broker": {"url": ""}},
    "valkey.enabled": {"broker": {"url": ""}},
    "valkey.": {"broker": {"url": ""}, "valkey": {"enabled": True}},
    "api.replicas": {"api": {"autoscaling": {"enabled": False}}},
    "ingress.": {"ingress": {"enabled": True}},
    "gateway.": {"gateway": {"enabled": True}},
    "gateway.tlsSecret": {"gateway": {"enabled": True, "className": "c"}},
    "workers.defaults.replicas": {"keda": {"enabled": False}},
    "workers.defaults.modelCache.storageClass": {"workers": {"defaults": {"modelCache": {"claim": True}}}},
    "bulk.replicas": {"keda": {"enabled": False}},
    "trainers.": {"trainers": {"replicas": 2}},
    "keda.prometheusAddress": {"keda": {"source": "prometheus"}},
    "networkPolicy.kedaNamespace": {"networkPolicy": {"clients": [{"podSelector": {"matchLabels": {"a": "b"}}}]}},
}
"""In which values a value counts: by its path, or what its path begins with."""
NOT_WITHOUT = ("store.accessKeyId", "store.secretAccessKey", "broker.existingSecret", "valkey.enabled")
"""What stands around these values is refused without them, so they are compared with the least values."""
OTHER: dict[str, Any] = {
    "store.url": "s3://other/place",
    "broker.url": "redis://other:6379/1",
    "api.publicUrl": "https://other.example",
    "workers.defaults.models": ["some-model"],
    "keda.source": "prometheus",
    "settings": {"TWINSET_LOG_LEVEL": "debug"},
    "workers.pools": {"second": {"models": ["a"]}},
    "networkPolicy.clients": [{"podSelector": {"matchLabels": {"a": "b"}}}],
    "api.autoscaling.minReplicas": 3,
}


def leaves(values: Values, part: dict[str, Any], path: str = "") -> list[tuple[str, Any, dict[str, Any]]]:
    """Path, default and schema of every value that is no group of values."""
    found = []
    for name, below in resolve(part)["properties"].items():
        if name == "global":
            continue
        below = resolve(below)
        if "properties" in below and f"{path}{name}" not in RESOURCES:
            found += leaves(values[name], below, f"{path}{name}.")
        else:
            found.append((f"{path}{name}", values[name], below))
    return found


RESOURCES = {f"{part}.resources" for part in ("api", "bulk", "trainers", "valkey", "workers.defaults")}
LEAVES = {path: (value, part) for path, value, part in leaves(chart().values, values_schema())}


def another(path: str, value: Any, part: dict[str, Any]) -> Any:
    """A value other than the default."""
    if path in OTHER:
        return OTHER[path]
    if "enum" in part:
        return next(each for each in part["enum"] if each != value)
    if path in RESOURCES:
        return {"limits": {"memory": "3Gi"}}
    if "anyOf" in part:
        return 7
    match part["type"]:
        case "boolean":
            return not value
        case "integer":
            return value + 1 if value < part["maximum"] else value - 1
        case "object":
            return {"example.org/other": "other"}
        case "array" if part["items"].get("type") == "object" or "$ref" in part["items"]:
            return [{"key": "other", "operator": "Exists"}]
        case "array" if path.endswith("Cidrs"):
            return ["10.9.8.0/24"]
        case "array":
            return ["other"]
    known = ("9Gi", "other", "other.example", "https://other.example", "0123456789abcdef", "whsec_" + "A" * 44, "cpu")
    return next(text for text in known if text != value and fits(text, part))


def fits(text: str, part: dict[str, Any]) -> bool:
    return re.fullmatch(part["pattern"], text) is not None


@pytest.mark.parametrize("path", LEAVES)
def test_every_value_changes_something(path: str) -> None:
    value, part = LEAVES[path]
    around: Values = deepcopy(BASE)
    groups = (start for start in WHERE if start.endswith(".") and path.startswith(start) and path != f"{start}enabled")
    for start in [*groups, *(start for start in WHERE if path == start)]:
        around = over_base(WHERE[start], around)
    changed: Any = another(path, value, part)
    for name in reversed(path.split(".")):
        changed = {name: changed}
    with_it = over_base(changed, around)
    if path in NOT_WITHOUT:
        around = deepcopy(BASE)
    assert json.dumps(rendered(with_it)) != json.dumps(rendered(around)), f"{path} changes nothing"
