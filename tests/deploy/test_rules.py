"""Rules, alerts and dashboards: promtool takes them, every metric exists in what processes expose, every alert has
its page."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.api.errors import every_problem
from service.kit.run_kinds import RunKind
from tests.deploy.exposed import ADDED_BY_PROMETHEUS, of_api, of_workers
from tests.readmes import ROOT, Readme
from tests.workers.conftest import broker_url, hire, post, redis, settings, store, worker
from workers.bulk.metrics import BulkCollector
from workers.bulk.worker import open_bulk_worker
from workers.generation.chunk import ChunkOutcome
from workers.generation.collector import WorkerCollector
from workers.generation.worker import Worker

__all__ = ["broker_url", "hire", "post", "redis", "settings", "store", "worker"]
RULES = sorted((ROOT / "deploy/rules").glob("*.yaml"))
DASHBOARDS = sorted((ROOT / "deploy/dashboards").glob("*.json"))
TESTS = Path(__file__).parent / "alerts_test.yaml"
PROMTOOL = os.environ.get("PROMTOOL") or shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not installed (Debian's package prometheus has it; PROMTOOL may name it)"
)
VALUES = {
    "outcome": {outcome.name.lower() for outcome in ChunkOutcome},
    "result": {"made", "failed", "delivered", "abandoned"},
    "slug": {problem.slug for problem in every_problem()},
    "kind": {kind.value for kind in RunKind},
    "method": {"POST"},
    "route": {"/generate"},
}


@cache
def rules() -> list[dict[str, Any]]:
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


@cache
def panels() -> dict[str, str]:
    """The expressions of all dashboards, by dashboard, panel and place."""
    return {
        f"{path.stem}: {panel['title']}: {target['refId']}": target["expr"].replace("$namespace", ".*")
        for path in DASHBOARDS
        for panel in json.loads(path.read_text())["panels"]
        for target in panel["targets"]
    }


def alerts() -> list[str]:
    return [rule["alert"] for rule in rules() if "alert" in rule]


def promtool(*arguments: str) -> str:
    assert PROMTOOL is not None
    ran = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@needs_promtool
def test_promtool_takes_the_rules_and_the_dashboards_expressions(tmp_path: Path) -> None:
    of_panels = [
        {"record": f"panel:{number}", "expr": expression} for number, expression in enumerate(panels().values())
    ]
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": of_panels}]}))
    told = promtool("check", "rules", *map(str, RULES), str(file))
    assert f"{len(of_panels)} rules found" in told


@needs_promtool
def test_every_alert_fires_when_it_must_and_is_silent_otherwise(tmp_path: Path) -> None:
    for path in (*RULES, TESTS):
        shutil.copy(path, tmp_path)
    assert "SUCCESS" in promtool("test", "rules", str(tmp_path / TESTS.name))


def test_every_alert_has_a_test_in_which_it_fires_and_one_in_which_it_is_silent() -> None:
    cases = [case for group in yaml.safe_load(TESTS.read_text())["tests"] for case in group["alert_rule_test"]]
    fires = {case["alertname"] for case in cases if case["exp_alerts"]}
    silent = {case["alertname"] for case in cases if not case["exp_alerts"]}
    assert fires == silent == set(alerts())
    assert len(alerts()) == 11


def test_every_alert_has_its_section_in_the_runbooks() -> None:
    readme = Readme("deploy/README.md")
    for rule in rules():
        if "alert" in rule:
            assert rule["annotations"]["runbook"] == f"deploy/README.md#{rule['alert'].lower()}"
            assert rule["alert"].lower() in readme.anchors
            assert rule["labels"]["severity"] in ("critical", "warning")


@pytest.fixture
def exposed(worker: Worker) -> Iterator[dict[str, frozenset[str]]]:
    bulk = open_bulk_worker(worker.settings)
    yield of_api() | of_workers(WorkerCollector(worker).collect(), BulkCollector(bulk).collect())
    bulk.close()


def test_every_metric_and_label_exists_in_what_the_processes_expose(exposed: dict[str, frozenset[str]]) -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    expressions = panels() | {rule.get("alert", rule.get("record")): rule["expr"] for rule in rules()}
    assert len(expressions) > 50
    for place, expression in expressions.items():
        selectors = re.findall(r"\b((?:twinset|process|python)[a-z0-9_:]*)(?:\{([^}]*)\})?", expression)
        assert selectors, place
        for name, matchers in selectors:
            assert name in exposed or name in recorded, f"{place}: {name} is exposed by no process"
            for label, text in re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"', matchers):
                known = exposed.get(name, ADDED_BY_PROMETHEUS) | ADDED_BY_PROMETHEUS | {"model", "route"}
                assert label in known, f"{place}: {name} has no label {label}"
                if label in VALUES:
                    assert set(text.split("|")) <= VALUES[label], f"{place}: {label} is never {text}"


def test_grouping_is_by_labels_that_some_metric_has(exposed: dict[str, frozenset[str]]) -> None:
    labels = ADDED_BY_PROMETHEUS.union(*exposed.values())
    for expression in (*panels().values(), *(rule["expr"] for rule in rules())):
        for names in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression):
            assert set(re.split(r"\s*,\s*", names)) <= labels, expression


def test_dashboards_have_ids_of_their_own_and_take_any_data_source() -> None:
    found = [json.loads(path.read_text()) for path in DASHBOARDS]
    assert [dashboard["uid"] for dashboard in found] == [f"twinset-{path.stem}" for path in DASHBOARDS]
    assert [path.stem for path in DASHBOARDS] == ["bulk", "engine", "service", "tenants"]
    for dashboard in found:
        ids = [panel["id"] for panel in dashboard["panels"]]
        assert len(ids) == len(set(ids))
        assert {panel["datasource"]["uid"] for panel in dashboard["panels"]} == {"${datasource}"}
