"""Options from a file: the same values as on the command line, which wins; sections, steps and mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from service.cli.config_file import ConfiguredCommand, is_last_step
from service.cli.model_options import KeyValue, chosen, model_options
from service.trainings.options import CoSimGenOptions, PathDiffOptions

RUNS: list[dict[str, Any]] = []


class Trained(ConfiguredCommand):
    sections = ("cosimgen", "superres")


@click.command("cosimgen", cls=Trained)
@click.option("--data", required=True)
@click.option("--superres")
@click.option("--cpu", is_flag=True)
@click.option("--part", "parts", type=KeyValue("P.O=V", "base.iterations=5", lambda value: value), multiple=True)
@model_options(CoSimGenOptions)
def cosimgen(**options: Any) -> None:
    context = click.get_current_context()
    given = chosen(context, CoSimGenOptions)
    rest = {name: options[name] for name in ("data", "superres", "cpu") if options[name]}
    RUNS.append(given | rest | ({"last": True} if is_last_step(context) else {}))


def run(file: Path, text: str, *arguments: str) -> Result:
    RUNS.clear()
    file.write_text(text)
    return CliRunner().invoke(cosimgen, ["--config", str(file), *arguments])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "training.yaml"


def test_values_are_those_of_the_command_line_and_the_command_line_wins(file: Path) -> None:
    text = """
        data: tiles
        cpu: true
        iterations: 50
        learning_rate: 2e-4
        precision: no
        has_up: false
        seed:
        seen: {Water: 0.2}
        fit: tiles
        aliases: {Road: [roads, street], "Land (unpaved)": [land]}
        notes: [first, "2"]
    """
    assert run(file, text, "--iterations", "60", "--seen", "Road=0.5").exit_code == 0
    assert RUNS == [
        {
            "data": "tiles",
            "cpu": True,
            "iterations": 60,
            "learning_rate": 0.0002,
            "precision": "no",
            "has_up": False,
            "seen": {"Road": 0.5},
            "fit": "tiles",
            "aliases": {"Road": ("roads", "street"), "Land (unpaved)": ("land",)},
            "notes": ("first", "2"),
            "last": True,
        }
    ]


def test_each_step_runs_in_turn_with_the_values_of_all(file: Path) -> None:
    text = "{data: tiles, eta: 0.7, steps: [{iterations: 10}, {iterations: 20, eta: 0.1}, {iterations: 30}]}"
    assert run(file, text).exit_code == 0
    common = {"data": "tiles", "eta": 0.7}
    assert [
        common | {"iterations": 10},
        common | {"iterations": 20, "eta": 0.1},
        common | {"iterations": 30, "last": True},
    ] == RUNS
    assert run(file, text, "--eta", "1", "--iterations", "5").exit_code == 0
    assert [(each["iterations"], each["eta"]) for each in RUNS] == [(5, 1.0)] * 3


def test_a_command_reads_its_own_section(file: Path) -> None:
    text = "{superres: {data: other, base_px: 32}, cosimgen: {data: tiles, superres: runs/superres}}"
    assert run(file, text).exit_code == 0
    assert RUNS == [{"data": "tiles", "superres": "runs/superres", "last": True}]
    # an option of that name is no section
    assert run(file, "{data: tiles, superres: runs/superres}").exit_code == 0
    assert RUNS[0]["superres"] == "runs/superres"
    missing = run(file, "{superres: {data: other}}")
    assert "it has no section cosimgen; it has: superres" in " ".join(missing.output.split())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "{data: a, iteration: 5}",
            "cosimgen has no 'iteration'; did you mean 'iterations'? It has: adversarial_weight",
        ),
        ("{data: a, base_px: 5}", "cosimgen has no 'base_px'; "),
        ("{data: a, iterations: 0}", "Invalid value for '--iterations': 0 is not in the range"),
        ("{data: a, iterations: 2.5}", "Invalid value for '--iterations': '2.5' is not a valid integer"),
        ("{data: a, iterations: true}", "Invalid value for '--iterations': 'true' is not a valid integer"),
        ("{data: a, aliases: {Road: []}}", "'Road: []' should look like 'Road=roads,street'"),
        ("{data: a, seen: {Water: much}}", "'Water: much' should look like 'Water=0.2'"),
        ("{iterations: 5}", "Missing option '--data'"),
        ("{data: a, iterations: [5]}", "iterations takes one value, not ['5']"),
        ("{data: a, notes: {a: b}}", "notes takes a list, not {'a': 'b'}"),
        ("{data: a, notes: [[a]]}", "notes takes a list, not [['a']]"),
        ("{data: a, seen: [[a]]}", "seen takes a map from names to values, not"),
        ("{data: a, data: b}", "it has 'data' twice in one object"),
        ("[data]", "it should be a map from names of options to values"),
        ("{data: a, steps: []}", "steps should be a list of maps"),
        ("{data: a, steps: [5]}", "step 1 should be a map"),
        ("data: [", "it is not valid YAML"),
    ],
)
def test_mistakes_are_named_with_the_remedy(file: Path, text: str, message: str) -> None:
    result = run(file, text)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert RUNS == []


def test_a_wrong_later_step_is_found_before_the_first_one_runs(file: Path) -> None:
    result = run(file, "{data: a, steps: [{iterations: 5}, {iterations: 0}]}")
    assert result.exit_code == 2
    assert RUNS == []


def test_a_no_of_yaml_is_a_word(file: Path) -> None:
    found: dict[str, Any] = {}

    @click.command("pathdiff", cls=ConfiguredCommand)
    @model_options(PathDiffOptions)
    def pathdiff(**options: Any) -> None:
        found.update(chosen(click.get_current_context(), PathDiffOptions))

    file.write_text("{instances: none, precision: no}")
    assert CliRunner().invoke(pathdiff, ["--config", str(file)]).exit_code == 0
    assert found == {"instances": "none", "precision": "no"}


def test_one_value_may_stand_for_a_list(file: Path) -> None:
    assert run(file, "{data: a, notes: only, seen: Water=0.2}").exit_code == 0
    assert (RUNS[0]["notes"], RUNS[0]["seen"]) == (("only",), {"Water": 0.2})
