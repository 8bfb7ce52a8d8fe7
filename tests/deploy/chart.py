"""The chart, rendered in process, and the schemas that its objects are held to."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import strategies as st

from tests.readmes import ROOT

_DEV = "a package of the extra 'dev' is not installed"
helm = pytest.importorskip("helm_python", reason=_DEV)
jsonschema = pytest.importorskip("jsonschema", reason=_DEV)
kubernetes_validate = pytest.importorskip("kubernetes_validate", reason=_DEV)
kubernetes_schemas = kubernetes_validate.utils

CHART = ROOT / "deploy/helm/twinset"
EXAMPLES = sorted((ROOT / "deploy/helm/examples").glob("*.yaml"))
VERSIONS = tuple(f"1.{minor}.0" for minor in range(30, 38))
BASE: dict[str, Any] = {"store": {"url": "s3://twins/prod"}, "broker": {"url": "redis://redis:6379/0"}}
Values = dict[str, Any]
Refused = helm.HelmError

# every call of validate() reads the definitions of a whole version
kubernetes_schemas.schema_contents = lru_cache(maxsize=None)(kubernetes_schemas.schema_contents)


class StrictLoader(yaml.SafeLoader):
    """YAML as Kubernetes reads it: a key that comes twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]  # type: ignore[no-untyped-call]
        assert len(keys) == len(set(keys)), f"keys come twice: {keys}"
        return super().construct_mapping(node, deep)


@cache
def chart() -> Any:
    return helm.Chart.load(str(CHART))


def over_base(values: Values, base: Values | None = None) -> Values:
    """``values`` over the few that every release needs."""
    merged = deepcopy(BASE if base is None else base)
    for name, value in values.items():
        if isinstance(value, dict) and isinstance(merged.get(name), dict):
            merged[name] = over_base(value, merged[name])
        else:
            merged[name] = value
    return merged


def rendered(values: Values, *, name: str = "twinset", namespace: str = "twins") -> list[dict[str, Any]]:
    """The objects of a release. Raises :data:`Refused`."""
    files = chart().render(values, name=name, namespace=namespace)
    texts = [text for path, text in files.items() if not path.endswith("NOTES.txt")]
    return [found for text in texts for found in yaml.load_all(text, Loader=StrictLoader) if found is not None]


def of_kind(objects: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    """The objects of a kind, by name."""
    return {found["metadata"]["name"]: found for found in objects if found["kind"] == kind}


def pods(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The specs of all pods, by the name of what makes them."""
    return {
        name: found["spec"]["template"]["spec"]
        for kind in ("Deployment", "StatefulSet")
        for name, found in of_kind(objects, kind).items()
    }


@cache
def custom_schema(kind: str) -> Any:
    """The schema of a custom resource; a member that it does not have is an error."""
    path = Path(__file__).parent / "crds" / f"{kind.lower()}.json"
    if not path.exists():
        return None
    schema = json.loads(path.read_text())

    def close(part: Any) -> None:
        if isinstance(part, dict):
            if isinstance(part.get("properties"), dict):
                part.setdefault("additionalProperties", False)
            for below in part.values():
                close(below)
        elif isinstance(part, list):
            for below in part:
                close(below)

    close(schema)
    return jsonschema.Draft202012Validator(schema)


def check_schema(found: dict[str, Any], *versions: str) -> None:
    """Raises a ValidationError unless the object is valid, and has no unknown member, in each version of Kubernetes."""
    custom = custom_schema(found["kind"])
    if custom is not None:
        custom.validate(found)
        return
    for version in versions:
        kubernetes_validate.validate(found, version, strict=True)


@cache
def values_schema() -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
    return schema


def resolve(part: dict[str, Any]) -> dict[str, Any]:
    """``part`` of the schema of values, behind its reference."""
    if "$ref" in part:
        found: dict[str, Any] = values_schema()["definitions"][part["$ref"].rpartition("/")[2]]
        return found
    return part


def drawn(part: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values of ``part`` of the schema: every key may be left out."""
    part = resolve(part)
    if "anyOf" in part:
        return st.one_of([drawn(each) for each in part["anyOf"]])
    if "enum" in part:
        return st.sampled_from(part["enum"])
    match part["type"]:
        case "boolean":
            return st.booleans()
        case "integer":
            return st.integers(part["minimum"], part["maximum"])
        case "number":
            return st.floats(part["minimum"], part["maximum"])
        case "string":
            text = st.from_regex(re.compile(part["pattern"], re.ASCII), fullmatch=True)
            return text.filter(lambda value: len(value) <= part.get("maxLength", 1000))
        case "array":
            unique = part.get("uniqueItems", False)
            return st.lists(drawn(part["items"]), max_size=3, unique=unique)
        case "object" if "properties" in part:
            optional = {name: drawn(below) for name, below in part["properties"].items()}
            values = st.fixed_dictionaries({}, optional=optional)
            return values.filter(lambda value: len(value) >= part.get("minProperties", 0))
        case "object" if "propertyNames" in part:
            names = st.from_regex(re.compile(part["propertyNames"]["pattern"], re.ASCII), fullmatch=True)
            return st.dictionaries(names, drawn(part["additionalProperties"]), max_size=3)
        case "object":
            return st.just({})
    raise AssertionError(f"the schema has a part that cannot be drawn from: {part}")
