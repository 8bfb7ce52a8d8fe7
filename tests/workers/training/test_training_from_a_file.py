"""``twinset train --config``: steps in one folder, that go on where the one before ended, and are not done twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from click.testing import CliRunner, Result

from tests.workers.training.toy import write_toy_dataset
from workers.cli import train

torch.set_num_threads(1)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of the run that ``training.yaml`` describes."""
    config = {
        "data": str(write_toy_dataset(tmp_path / "toy")),
        "out": str(tmp_path / "run"),
        "preset": "toy",
        "cpu": True,
        "precision": "no",
        "batch_size": 2,
        "alignment_iterations": 2,
        "log_every": 1,
        "name": "toys",
        "aliases": {"night": ["dark"], "day": ["daylight", "sunshine"]},
        "guidance_scale": 1.5,
        "steps": [{"iterations": 2, "repeat_below": 0, "noisy_share": 0.2}, {"iterations": 3}, {"iterations": 5}],
    }
    (tmp_path / "training.yaml").write_text(json.dumps({"cosimgen": config, "superres": {}}))
    return tmp_path / "run"


def invoke(run: Path, *arguments: str) -> Result:
    AcceleratorState._reset_state(reset_partial_state=True)
    return CliRunner().invoke(train, ["cosimgen", "--config", str(run.with_name("training.yaml")), *arguments])


def test_steps_go_on_where_the_one_before_ended_and_are_not_done_twice(run: Path) -> None:
    first = invoke(run)
    assert first.exit_code == 0, first.output
    assert first.output.count("wrote toys@1.0.0") == 3
    assert "resuming at iteration 2 of 3" in first.output
    assert "resuming at iteration 3 of 5" in first.output
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [1, 2, 3, 4, 5]
    card = json.loads((run / "model" / "card.json").read_text())
    assert card["training"]["iterations"] == 5
    assert card["defaults"]["guidance_scale"] == 1.5
    assert {entry["name"]: entry["aliases"] for entry in card["classes"]}["day"] == ["daylight", "sunshine"]
    weights = (run / "model" / "model.safetensors").read_bytes()

    again = invoke(run)
    assert again.exit_code == 0, again.output
    assert again.output.count("was reached before; the next step follows") == 2
    assert again.output.count("wrote toys@1.0.0") == 1
    assert (run / "model" / "model.safetensors").read_bytes() == weights
    assert len((run / "log.jsonl").read_text().splitlines()) == 5


def test_the_command_line_goes_before_the_file(run: Path) -> None:
    result = invoke(run, "--iterations", "1", "--name", "others", "--alias", "day=noon")
    assert result.exit_code == 0, result.output
    card = json.loads((run / "model" / "card.json").read_text())
    assert (card["name"], card["training"]["iterations"]) == ("others", 1)
    aliases = {entry["name"]: entry.get("aliases", []) for entry in card["classes"]}
    assert (aliases["day"], aliases["night"]) == (["noon"], [])
