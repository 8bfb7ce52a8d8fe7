"""The Helm chart: valid in every version of Kubernetes, restricted pods, closed networks, no contradictions."""

from __future__ import annotations

import tarfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from service import __version__
from service.api.app import create_app
from service.kit.scaling import replicas_wanted
from service.settings import Settings
from tests.deploy.chart import (
    BASE,
    CHART,
    EXAMPLES,
    VERSIONS,
    Refused,
    Values,
    check_schema,
    helm,
    of_kind,
    over_base,
    pods,
    rendered,
)
from tests.readmes import ROOT, Readme

EVERYTHING = over_base(
    {
        "broker": {"url": ""},
        "valkey": {"enabled": True, "storage": {"storageClass": "fast"}},
        "ingress": {"enabled": True, "className": "nginx", "tlsSecret": "tls", "host": "a.example"},
        "gateway": {"enabled": True, "className": "envoy", "tlsSecret": "tls", "host": "b.example"},
        "networkPolicy": {"clients": [{"namespaceSelector": {"matchLabels": {"name": "ingress"}}}]},
        "keda": {"source": "prometheus"},
        "workers": {
            "pools": {
                "gpu": {"modelCache": {"claim": True}},
                "cpu": {"image": "twinset-worker", "models": ["tiny"], "device": "cpu", "resources": {}},
            }
        },
        "trainers": {"replicas": 2, "gpus": 1},
        "imagePullSecrets": ["registry"],
    }
)
CASES: dict[str, Values] = {
    "the least": BASE,
    "everything": EVERYTHING,
    "nothing optional": over_base(
        {
            "keda": {"enabled": False},
            "api": {"autoscaling": {"enabled": False}},
            "networkPolicy": {"enabled": False},
            "monitoring": {"podMonitors": False, "rules": False, "dashboards": False},
            "serviceAccount": {"create": False},
            "workers": {"pools": {"gpu": None}},
        }
    ),
    "names like other types": over_base(
        {
            "nameOverride": "0",
            "fullnameOverride": "null",
            "imageTag": "1.10",
            "imagePullSecrets": ["1e3"],
            "serviceAccount": {"name": "true"},
            "ingress": {"enabled": True, "host": "1.1", "className": "on", "tlsSecret": "0"},
            "gateway": {"enabled": True, "host": "2.2", "name": "5", "namespace": "6"},
            "networkPolicy": {"monitoringNamespace": "1", "kedaNamespace": "2", "clients": [{"podSelector": {}}]},
            "workers": {"pools": {"no": {"models": ["1"], "warm": ["1"], "runtimeClassName": "0"}}},
            "api": {"nodeSelector": {"a": "true"}, "podAnnotations": {"b": "1"}, "priorityClassName": "1"},
            "monitoring": {"labels": {"release": "2"}},
        }
    ),
} | {path.stem: yaml.safe_load(path.read_text()) for path in EXAMPLES}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", CASES)
def test_every_object_passes_the_strict_schemas(case: str, version: str) -> None:
    objects = rendered(CASES[case])
    assert len(objects) >= 7
    for found in objects:
        check_schema(found, version)
    names = [(found["kind"], found["metadata"]["name"]) for found in objects]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("case", CASES)
def test_every_pod_is_restricted(case: str) -> None:
    for name, spec in pods(rendered(CASES[case])).items():
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["runAsUser"] > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC", "initContainers"}
        kinds = {kind for volume in spec.get("volumes", []) for kind in volume if kind != "name"}
        assert kinds <= {"emptyDir", "persistentVolumeClaim"}, "volumes that 'restricted' allows"
        for container in spec["containers"]:
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False
            assert own["readOnlyRootFilesystem"] is True
            assert own["capabilities"] == {"drop": ["ALL"]}
            assert not own.keys() & {"privileged", "runAsUser"}
            assert not [port for port in container["ports"] if "hostPort" in port]
            assert {"startupProbe", "livenessProbe"} & container.keys()
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False, "Kubernetes' TWINSET_PORT would be taken for the setting"


def test_settings_that_the_chart_sets_are_settings_and_start_the_api(monkeypatch: pytest.MonkeyPatch) -> None:
    objects = rendered(EVERYTHING)
    names = {f"TWINSET_{name.upper()}" for name in Settings.model_fields} | {"TWINSET_HEARTBEAT_FILE"}
    config = of_kind(objects, "ConfigMap")["twinset"]["data"]
    secret = of_kind(objects, "Secret")["twinset"]["stringData"]
    set_by_pods = {
        variable["name"]: variable["value"]
        for spec in pods(objects).values()
        for container in spec["containers"]
        for variable in container.get("env", [])
    }
    given = config | secret | set_by_pods
    assert {name for name in given if name.startswith("TWINSET_")} <= names
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.broker_url == "redis://twinset-valkey:6379/0"
    assert settings.public_url == "https://a.example"
    assert "twinset.twins.svc" in settings.allowed_hosts


def test_clients_reach_every_call_but_none_that_is_for_operators() -> None:
    objects = rendered(EVERYTHING)
    [ingress] = of_kind(objects, "Ingress").values()
    [route] = of_kind(objects, "HTTPRoute").values()
    paths = {path["path"] for path in ingress["spec"]["rules"][0]["http"]["paths"]}
    assert paths == {match["path"]["value"] for rule in route["spec"]["rules"] for match in rule["matches"]}
    app = create_app(Settings(store_url="s3://twins/prod", broker_url="redis://127.0.0.1:9/0"))
    called = {"/" + path.split("/")[1] for path in app.openapi()["paths"]}
    assert paths - called == {"/docs", "/openapi.json", "/static-offline-docs"}
    assert called - paths == {"/metrics", "/autoscaling", "/readyz"}


def test_every_pod_is_in_a_closed_network_and_only_what_is_named_is_open() -> None:
    objects = rendered(EVERYTHING)
    policies = of_kind(objects, "NetworkPolicy")
    everyone = {"app.kubernetes.io/name": "twinset", "app.kubernetes.io/instance": "twinset"}
    deny = policies["twinset-default-deny"]["spec"]
    assert deny == {"podSelector": {"matchLabels": everyone}, "policyTypes": ["Ingress", "Egress"]}
    for kind in ("Deployment", "StatefulSet"):
        for found in of_kind(objects, kind).values():
            labels = found["spec"]["template"]["metadata"]["labels"]
            assert everyone.items() <= labels.items()
            assert found["spec"]["selector"]["matchLabels"].items() <= labels.items()
    ports = {
        name: [port["port"] for rule in policy["spec"].get("ingress", []) for port in rule["ports"]]
        for name, policy in policies.items()
    }
    assert ports == {
        "twinset-default-deny": [],
        "twinset-broker-and-store": [],
        "twinset-api": ["http"],
        "twinset-workers": ["metrics"],
        "twinset-valkey": ["valkey"],
    }
    sent = {
        (port["protocol"], port["port"])
        for policy in policies.values()
        for rule in policy["spec"].get("egress", [])
        for port in rule["ports"]
    }
    assert sent == {("UDP", 53), ("TCP", 53), ("TCP", 6379), ("TCP", 443), ("TCP", 80)}
    keyed = rendered(over_base({"store": {"existingSecret": "keys"}}))
    assert "port: 80\n" not in yaml.safe_dump(of_kind(keyed, "NetworkPolicy")["twinset-broker-and-store"])


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"store": {"url": ""}}, "store.url is empty"),
        ({"broker": {"url": ""}}, "0 of broker.url"),
        ({"valkey": {"enabled": True}}, "2 of broker.url"),
        ({"store": {"accessKeyId": "a"}}, "only one is set"),
        ({"store": {"accessKeyId": "a", "secretAccessKey": "b", "existingSecret": "c"}}, "keep one way"),
        ({"secrets": {"linkSecret": "0123456789abcdef", "existingSecret": "c"}}, "keep one way"),
        ({"bulk": {"autoscaling": {"minReplicas": 9}}}, "minReplicas is 9 and maxReplicas 4"),
        ({"workers": {"pools": {"other": {}}}}, "would be counted twice"),
        ({"workers": {"pools": {"one": {"models": ["m"]}, "two": {"models": ["m"]}}}}, "both scale with m"),
        ({"settings": {"TWINSET_PORT": "1"}}, "TWINSET_PORT is set by the chart"),
        ({"gateway": {"enabled": True, "tlsSecret": "t"}}, "gateway.className"),
        ({"ingress": {"enabled": True}, "gateway": {"enabled": True}}, "both serve twinset.example.org"),
        ({"api": {"replica": 3}}, "additional properties 'replica' not allowed"),
        ({"workers": {"pools": {"gpu": {"replica": 3}}}}, "additional properties 'replica' not allowed"),
        ({"store": {"url": "https://bucket"}}, "does not match pattern"),
    ],
)
def test_values_that_contradict_each_other_are_refused_with_the_reason(values: Values, told: str) -> None:
    with pytest.raises(Refused, match=".*".join(map(str, [told.replace("(", r"\(")]))):
        rendered(over_base(values))


def triggers(values: Values, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = of_kind(rendered(over_base(values)), "ScaledObject")[name]["spec"]["triggers"]
    return found


def test_pools_scale_on_their_models_and_one_pool_on_all_others() -> None:
    pools = {"gpu": {}, "large": {"models": ["a", "b"]}, "small": {"models": ["c"]}}
    values = {"workers": {"pools": pools}}
    urls = {name: triggers(values, f"twinset-worker-{name}")[0]["metadata"]["url"] for name in pools}
    start = "http://twinset.twins.svc:80/autoscaling?target_s=600"
    assert urls["gpu"] == f"{start}&except_models=a,b,c"
    assert urls["large"] == f"{start}&models=a,b"
    by_prometheus = triggers({**values, "keda": {"source": "prometheus"}}, "twinset-worker-gpu")
    assert 'model!~"(a|b|c)@.*"' in by_prometheus[0]["metadata"]["query"]
    assert triggers({}, "twinset-bulk")[0]["metadata"]["valueLocation"] == "bulk.replicas"


@pytest.mark.parametrize(("backlog_s", "busy"), [(0, 0), (1, 0), (600, 0), (601, 1), (12_000, 3), (10, 7)])
def test_both_sources_scale_by_the_one_rule(backlog_s: int, busy: int) -> None:
    # KEDA asks for ceil(value / threshold) replicas for each trigger, and the autoscaler takes the most
    values = {"workers": {"defaults": {"autoscaling": {"targetSeconds": 300}}}}
    wanted = replicas_wanted(backlog_s, 300, busy)
    two = triggers({**values, "keda": {"source": "prometheus"}}, "twinset-worker-gpu")
    work, held = (int(trigger["metadata"]["threshold"]) for trigger in two)
    assert max(-(-backlog_s // work), -(-busy // held)) == wanted
    [one] = triggers(values, "twinset-worker-gpu")
    assert "target_s=300" in one["metadata"]["url"]
    assert (one["metadata"]["valueLocation"], one["metadata"]["targetValue"]) == ("replicas", "1")
    assert all(trigger["metadata"]["ignoreNullValues"] == "false" for trigger in two), "no answer is no zero"


def test_a_worker_is_killed_only_after_its_own_grace_time() -> None:
    spec = pods(rendered(over_base({"workers": {"defaults": {"graceSeconds": 90}}})))["twinset-worker-gpu"]
    assert "--grace-s=90" in spec["containers"][0]["args"]
    assert spec["terminationGracePeriodSeconds"] == 110


def test_a_pool_without_a_gpu_leaves_out_the_defaults_resources() -> None:
    spec = pods(rendered(EVERYTHING))
    assert spec["twinset-worker-cpu"]["containers"][0]["resources"] == {}
    assert spec["twinset-worker-gpu"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_rules_and_dashboards_in_the_package_are_those_of_the_repository(tmp_path: Path) -> None:
    package = helm.package(str(CHART), destination=str(tmp_path))
    path = package if isinstance(package, str) else str(next(tmp_path.glob("*.tgz")))
    with tarfile.open(path) as archive:
        packed = {
            member.name.removeprefix("twinset/"): archive.extractfile(member).read()  # type: ignore[union-attr]
            for member in archive.getmembers()
        }
    for folder in ("rules", "dashboards"):
        files = sorted((ROOT / "deploy" / folder).iterdir())
        assert {f"{folder}/{path.name}": path.read_bytes() for path in files} == {
            name: data for name, data in packed.items() if name.startswith(f"{folder}/")
        }
    objects = rendered(BASE)
    for file in (ROOT / "deploy/rules").glob("*.yaml"):
        assert of_kind(objects, "PrometheusRule")[f"twinset-{file.stem}"]["spec"] == yaml.safe_load(file.read_text())


def test_the_chart_passes_helms_own_lint_and_has_the_programs_version() -> None:
    worse_than_advice = [
        finding for finding in helm.lint(str(CHART), values=BASE)["messages"] if finding["severity"] > 1
    ]
    assert worse_than_advice == []
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == __version__


def test_the_readmes_commands_install_releases_that_render() -> None:
    commands = [words for words in Readme("deploy/README.md").shell if words[0] == "helm"]
    assert len(commands) == 2
    for words in commands:
        assert (ROOT / next(word for word in words if word.startswith("deploy/helm/"))).samefile(CHART)
        pairs = list(pairwise(words))
        files = [ROOT / value for option, value in pairs if option == "-f" and value != "my-values.yaml"]
        values = over_base({}, *(yaml.safe_load(file.read_text()) for file in files))
        for option, value in pairs:
            if option == "--set":
                values = over_base(helm.parse_set_string(value), values)
        assert pods(rendered(values, namespace=next(value for option, value in pairs if option == "-n")))


def test_an_examples_comment_says_what_it_is() -> None:
    assert [path.name for path in EXAMPLES] == ["spot-gpus.yaml", "trial.yaml"]
    assert all(path.read_text().startswith("# ") for path in EXAMPLES)
