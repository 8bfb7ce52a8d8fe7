"""Layout of the repository: names, folders and the size of READMEs."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest

from tests.markers import SLOW_PLACES
from tests.readmes import PACKAGES, ROOT, Readme, each_readme

ROOMS_WITH_A_README = (
    "deploy",
    "docker",
    "model_store",
    "service",
    "service/augmentations",
    "service/datasets",
    "tests",
    "workers",
    "workers/evaluation",
    "workers/training",
)
MAX_README_LINES, MAX_README_COLUMNS = 150, 120


def public_classes(path: Path) -> list[str]:
    """Names of the public classes at the top level of a module."""
    tree = ast.parse(path.read_text(encoding="utf-8"), path)
    return [node.name for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]


def test_a_public_class_name_is_defined_once() -> None:
    modules = defaultdict(list)
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for name in public_classes(path):
                modules[name].append(path.relative_to(ROOT).as_posix())
    assert len(modules) > 300
    assert {name: paths for name, paths in modules.items() if len(paths) > 1} == {}


def test_workers_holds_its_two_entry_points_and_otherwise_folders() -> None:
    files = {path.name for path in (ROOT / "workers").iterdir() if path.is_file()}
    assert files - {"README.md"} == {"__init__.py", "cli.py", "main.py", "py.typed"}


def test_every_package_ships_its_types() -> None:
    for package in (*PACKAGES, "service/twinset"):
        assert (ROOT / package / "py.typed").is_file()


@pytest.mark.parametrize("place", SLOW_PLACES)
def test_a_place_of_slow_tests_exists(place: str) -> None:
    assert (ROOT / place).exists()


@pytest.mark.parametrize("room", ROOMS_WITH_A_README)
def test_a_room_has_a_readme(room: str) -> None:
    assert (ROOT / room / "README.md").is_file()


@each_readme
def test_a_readme_is_short_enough_to_be_read(readme: Readme) -> None:
    lines = readme.text.splitlines()
    assert len(lines) <= MAX_README_LINES
    if readme.name == "README.md":
        assert [line for line in lines if len(line) > MAX_README_COLUMNS] == []
