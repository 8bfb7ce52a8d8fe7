"""The bundled models' training.yaml: every command takes its section, and its settings are those on the card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest

from model_store import bundled_folder
from service.cli.config_file import read_steps
from service.cli.model_options import chosen
from service.trainings.options import OPTIONS, SystemName
from workers.cli import evaluate, train
from workers.evaluation.options import EvaluateCommand
from workers.training.options import COMMANDS

FILES = sorted(bundled_folder().glob("*/training.yaml"))
SYSTEMS: dict[str, SystemName] = {"siamese": "siamese-diffusion"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder that has the files which the recipes name."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).touch()
    return tmp_path


def sections(file: Path) -> list[str]:
    return [line[:-1] for line in file.read_text().splitlines() if line[:1].isalpha() and line.endswith(":")]


def steps(file: Path, section: str) -> list[click.Context]:
    """A section as its command reads it, step by step."""
    command = train.get_command(click.Context(train), section)
    assert command is not None
    found = []
    for number, values in enumerate(read_steps(file, section, (*COMMANDS, "evaluate"))):
        one = Path(f"{section}-{number}.yaml")
        one.write_text(json.dumps(values))
        found.append(command.make_context(section, ["--config", str(one)]))
    return found


def settings(file: Path, section: str) -> list[dict[str, Any]]:
    model = OPTIONS[SYSTEMS.get(section, section)]  # type: ignore[arg-type]
    return [model.model_validate(chosen(step, model)).model_dump(mode="json") for step in steps(file, section)]


def test_every_bundled_model_has_its_recipe() -> None:
    assert {file.parent.name for file in FILES} == {path.name for path in bundled_folder().iterdir() if path.is_dir()}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.parent.name)
def test_the_last_step_has_the_settings_and_words_of_the_card(file: Path) -> None:
    card = json.loads(sorted(file.parent.glob("*/card.json"))[-1].read_text())
    section = card["system"].removesuffix("-diffusion")
    last, parameters = settings(file, section)[-1], steps(file, section)[-1].params
    on_card = card["training"]["settings"]
    same = {name for name, value in last.items() if value is not None and name in on_card}
    assert same >= {"iterations", "preset"}
    assert {name: on_card[name] for name in same} == {name: last[name] for name in same}
    assert (parameters["name"], parameters["version"]) == (card["name"], card["version"])
    assert (last["title"], last["notes"]) == (card["title"], card["training"]["notes"])
    defaults = card["defaults"]
    assert last["guidance_scale"] == defaults["guidance_scale"]
    assert last.get("eta", 0.0) == defaults["eta"]
    assert last.get("guidance_target") == defaults["guidance_target"]
    aliases = {entry["name"]: entry["aliases"] for entry in card["classes"] if entry.get("aliases")}
    assert last["aliases"] == aliases


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.parent.name)
def test_every_section_is_a_command_whose_parts_are_made_before(file: Path) -> None:
    made: set[str] = set()
    *trained, measured = sections(file)
    assert measured == "evaluate"
    for section in trained:
        for step in steps(file, section):
            assert {
                str(step.params[part]) for part in ("base", "autoencoder", "superres") if step.params.get(part)
            } <= made
        made.add(str(step.params["out"]))
    command = evaluate.get_command(click.Context(evaluate), trained[-1])
    assert isinstance(command, EvaluateCommand)
    context = command.make_context("evaluate", ["--config", str(file)])
    assert context.params["model"] == f"{step.params['out']}/model"
    assert (context.params["record"], context.params["has_up"]) == (True, False)


def test_the_runs_of_dubai_go_on_where_the_one_before_ended() -> None:
    (file,) = (file for file in FILES if file.parent.name == "cosimgen-dubai")
    found = settings(file, "cosimgen")
    assert [step["iterations"] for step in found] == [18_000, 24_000, 30_000, 38_000, 42_000]
    assert [step["presence_margin"] for step in found] == [1.0, 1.0, None, 3.0, 4.0]
    assert [step["noisy_share"] for step in found] == [0.2, None, None, None, None]
    assert len({step["title"] for step in found}) == 1
