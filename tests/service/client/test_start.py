"""Imports of the client: cheap, without torch, numpy or the server; and the import name ``twinset``."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import service.client
import service.twinset
from service.client import (
    AsyncAugmentation,
    AsyncDatasetRef,
    AsyncExport,
    AsyncJob,
    AsyncTwinset,
    Augmentation,
    DatasetRef,
    Export,
    Job,
    Twinset,
)

ROOT = Path(__file__).parents[3]
HEAVY = (
    "torch",
    "numpy",
    "PIL",
    "boto3",
    "botocore",
    "celery",
    "redis",
    "fastapi",
    "starlette",
    "diffusers",
    "workers",
    "service.api",
)


def run(program: str, cwd: Path = ROOT, **environment: str) -> list[Any]:
    ran = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=cwd,
        env={**os.environ, **environment},
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_importing_and_using_the_client_loads_no_heavy_module() -> None:
    program = f"""
import json, sys, time
from service.client import Twinset, AsyncTwinset
cpu_s = time.process_time()
import httpx
stub = httpx.MockTransport(lambda request: httpx.Response(200, json={{"jobs": [], "next_cursor": None}}))
with Twinset("http://twins.example", transport=stub) as client:
    assert list(client.jobs()) == []
print(json.dumps([cpu_s, [name for name in {HEAVY!r} if name in sys.modules]]))
"""
    cpu_s, loaded = run(program)
    assert loaded == []
    assert cpu_s < 2.0  # a third of a second on an idle machine


def test_twinset_exports_all_of_service_client() -> None:
    assert set(service.twinset.__all__) == {*service.client.__all__, "__version__"}
    for name in service.client.__all__:
        assert getattr(service.twinset, name) is getattr(service.client, name)
    public = {name for name, value in vars(service.client).items() if inspect.isclass(value) and name[0] != "_"}
    assert set(service.client.__all__) == public, "every class that the package imports is exported"


def test_twinset_can_be_imported_from_an_installed_wheel(tmp_path: Path) -> None:
    """The modules as setuptools would install them, by its own mapping of pyproject.toml."""
    pytest.importorskip("setuptools")
    install = f"""
import json, pathlib, shutil
from setuptools import Distribution
from setuptools.config.pyprojecttoml import apply_configuration
distribution = apply_configuration(Distribution({{"script_name": "setup.py"}}), "pyproject.toml")
build = distribution.get_command_obj("build_py")
build.ensure_finalized()
for package, module, file in build.find_all_modules():
    target = pathlib.Path(build.get_module_outfile({str(tmp_path / "site")!r}, package.split("."), module))
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, target)
print(json.dumps(sorted(distribution.packages)))
"""
    packages = run(install)
    assert "twinset" in packages
    assert "service.twinset" not in packages
    assert "service.client" in packages
    use = f"""
import json, sys
import service, twinset
from twinset import AsyncTwinset, Twinset
loaded = [name for name in {HEAVY!r} if name in sys.modules]
print(json.dumps([[twinset.__file__, service.__file__, twinset.__version__], loaded]))
"""
    [places, loaded] = run(use, cwd=tmp_path, PYTHONPATH=str(tmp_path / "site"))
    assert places == [
        str(tmp_path / "site/twinset/__init__.py"),
        str(tmp_path / "site/service/__init__.py"),
        service.__version__,
    ]
    assert loaded == []


def test_without_torch_the_dataset_raises_with_the_remedy() -> None:
    program = """
import json, sys
sys.modules["torch"] = None
try:
    from service.client.torch_dataset import TwinDataset
except ImportError as error:
    from service.errors import MissingExtra
    print(json.dumps([isinstance(error, MissingExtra), str(error)]))
"""
    is_ours, text = run(program)
    assert is_ours
    assert "pip install torch" in str(text)


PAIRS = [
    (Twinset, AsyncTwinset),
    (Job, AsyncJob),
    (DatasetRef, AsyncDatasetRef),
    (Export, AsyncExport),
    (Augmentation, AsyncAugmentation),
]


@pytest.mark.parametrize(("sync", "asynchronous"), PAIRS, ids=lambda kind: kind.__name__)
def test_both_clients_have_the_same_documented_methods(sync: type, asynchronous: type) -> None:
    def methods(kind: type) -> dict[str, list[str]]:
        found = inspect.getmembers(kind, inspect.isfunction)
        return {
            name.replace("aclose", "close"): list(inspect.signature(call).parameters)
            for name, call in found
            if name[0] != "_"
        }

    assert methods(sync) == methods(asynchronous)
    assert len(methods(sync)) >= 5
    undocumented = [
        name for name, call in inspect.getmembers(sync, inspect.isfunction) if name[0] != "_" and not call.__doc__
    ]
    assert undocumented == []


def test_a_method_has_the_signature_of_its_flow() -> None:
    assert list(inspect.signature(Twinset.jobs).parameters)[1:] == ["state"]
    assert {"model", "prompt", "classes", "mask", "count", "seed"} <= inspect.signature(
        Twinset.generate
    ).parameters.keys()
