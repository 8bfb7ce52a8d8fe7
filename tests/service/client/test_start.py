"""Importing the client is cheap, and brings nothing of what a server or a model is made of."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

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


def run(program: str) -> list[object]:
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_importing_and_using_the_client_loads_nothing_heavy() -> None:
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


def test_without_torch_the_dataset_says_how_to_get_it() -> None:
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


@pytest.mark.parametrize(("blocking", "cooperative"), PAIRS, ids=lambda kind: kind.__name__)
def test_both_clients_have_the_same_methods(blocking: type, cooperative: type) -> None:
    def methods(kind: type) -> dict[str, list[str]]:
        found = inspect.getmembers(kind, inspect.isfunction)
        return {
            name.replace("aclose", "close"): list(inspect.signature(call).parameters)
            for name, call in found
            if name[0] != "_"
        }

    assert methods(blocking) == methods(cooperative)
    assert len(methods(blocking)) >= 5
    undocumented = [
        name for name, call in inspect.getmembers(blocking, inspect.isfunction) if name[0] != "_" and not call.__doc__
    ]
    assert undocumented == []


def test_a_method_shows_the_parameters_of_what_it_does() -> None:
    assert list(inspect.signature(Twinset.jobs).parameters)[1:] == ["state"]
    assert {"model", "prompt", "classes", "mask", "count", "seed"} <= inspect.signature(
        Twinset.generate
    ).parameters.keys()
