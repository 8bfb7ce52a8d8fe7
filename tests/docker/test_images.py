"""The images: small, without root, secrets and build tools, and they start on a read-only file system."""

from __future__ import annotations

import json
import re
import subprocess
import tarfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from service import __version__
from tests.docker.engine import BIN, image, run
from tests.readmes import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("images")]
TARGETS = ("service", "bulk", "worker")
MAX_SERVICE_BYTES = 250_000_000
MAX_BYTES = {"service": MAX_SERVICE_BYTES, "bulk": 450_000_000, "worker": 1_250_000_000}
each_target = pytest.mark.parametrize("target", TARGETS)


@cache
def inspected(target: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads(run("docker", "image", "inspect", image(target)))
    return found[0]


def inside(target: str, *command: str) -> str:
    """Runs a command in a container that may write to /tmp and the scratch folder alone, without any capability."""
    return run(
        *("docker", "run", "--rm", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--network", "none"),
        *("--tmpfs", "/var/lib/twinset:uid=10001", "--entrypoint", command[0], image(target), *command[1:]),
    )


@each_target
def test_an_image_is_small(target: str) -> None:
    assert inspected(target)["Size"] <= MAX_BYTES[target]


@each_target
def test_an_image_runs_as_a_user_without_rights(target: str) -> None:
    assert inspected(target)["Config"]["User"] == "10001:10001"
    assert inside(target, "id", "-u").strip() == "10001"
    find = "find / -xdev -writable -not -type l -not -path '/proc/*' 2>/dev/null || true"
    assert set(inside(target, "sh", "-c", find).split()) == {"/tmp", "/var/lib/twinset"}


@each_target
def test_an_image_has_labels_a_health_check_and_an_entry_point_that_gets_signals(target: str) -> None:
    config = inspected(target)["Config"]
    labels = {name.removeprefix("org.opencontainers.image.") for name in config["Labels"]}
    assert {"title", "description", "licenses", "version", "revision", "created"} <= labels
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert config["Healthcheck"]["Test"][0] == "CMD"
    assert [word for word in config["Entrypoint"] if word not in ("-e", "143")] == ["/usr/bin/tini", "--", "twinset"]


@each_target
def test_no_layer_holds_secrets_build_tools_caches_or_settings_of_the_build(target: str, tmp_path: Path) -> None:
    names = all_files(target, tmp_path)
    programs = {Path(name).name for name in names if "/bin/" in f"/{name}" or "/sbin/" in f"/{name}"}
    assert programs & {"gcc", "cc", "g++", "c++", "ld", "make", "cmake", "git", "pip", "pip3", "curl", "wget"} == set()
    suspects = re.compile(r"(^|/)(\.git/|\.env$|\.aws/|\.netrc$|pip\.conf$|pip-ca\.crt$|id_rsa|.*\.whl$|\.cache/pip)")
    assert [name for name in names if suspects.search(name)] == []
    assert [name for name in names if name.startswith(("run/secrets/", "var/lib/apt/lists/", "root/.cache"))] == []
    history = run("docker", "history", "--no-trunc", "--format", "{{.CreatedBy}}", image(target))
    assert re.search(r"(?i)password|secret_|token|api_key", history) is None


def all_files(target: str, folder: Path) -> list[str]:
    """The names of all files in all layers."""
    run("docker", "save", "-o", str(folder / "image.tar"), image(target))
    names = []
    with tarfile.open(folder / "image.tar") as saved:
        for member in saved:
            layer = saved.extractfile(member)
            if layer is None or member.name.endswith(".json"):
                continue
            try:
                with tarfile.open(fileobj=layer) as files:
                    names += [file.name for file in files if not file.isdir() and "/.wh." not in file.name]
            except tarfile.ReadError:
                continue  # not a layer
    assert len(names) > 5000
    return names


def test_only_workers_hold_torch_and_weights_and_every_image_the_cards() -> None:
    code = "import importlib.util, model_store as m; f = m.bundled_folder()\n"
    code += (
        "print(len([*f.rglob('card.json')]), len([*f.rglob('*.safetensors')]), bool(importlib.util.find_spec('torch')))"
    )
    found = {target: inside(target, "python3", "-c", code).split() for target in TARGETS}
    assert found == {"service": ["3", "0", "False"], "bulk": ["3", "0", "False"], "worker": ["3", "3", "True"]}


@each_target
def test_the_list_of_packages_is_inside(target: str) -> None:
    listed = json.loads(inside(target, "cat", "/opt/twinset/sbom.cdx.json"))
    assert listed["bomFormat"] == "CycloneDX"
    versions = {component["name"]: component["version"] for component in listed["components"]}
    assert versions["twinset"] == __version__
    assert ("torch" in versions) == (target == "worker")
    code = "from importlib.metadata import distributions as d; print(*{x.name.lower() for x in d()})"
    assert {name.lower() for name in versions} == set(inside(target, "python3", "-c", code).split())


def test_a_worker_makes_a_twin_on_a_read_only_file_system_without_network() -> None:
    options = ("--samples", "2", "--steps", "2", "--rounds", "1", "--rows", "2", "--json")
    assert json.loads(inside("worker", "twinset", "bench", "siamese-nuclei", *options))["stored_per_s"] > 0


def test_the_dockerfiles_are_clean() -> None:
    files = ("docker/Dockerfile", "tests/docker/stand-ins.Dockerfile")
    done = subprocess.run([BIN / "hadolint", "--config", "docker/hadolint.yaml", *files], cwd=ROOT, capture_output=True)
    assert done.stdout.decode() == ""
    assert done.returncode == 0
    text = (ROOT / files[0]).read_text(encoding="utf-8")
    assert re.search(r"# ?syntax|<<|--link", text) is None
