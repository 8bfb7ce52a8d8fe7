"""A signal ends a training after its current iteration, with a checkpoint; the run goes on as if it had not come."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from tests.workers.training.test_cosimgen_training import SETTINGS
from tests.workers.training.toy import letters, write_toy_dataset
from workers.data.training_set import TrainingSet
from workers.training.cosimgen import CoSimGenTrainer


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    torch.set_num_threads(1)
    return TrainingSet.open(write_toy_dataset(tmp_path_factory.mktemp("data") / "toy"))


class Interrupted(CoSimGenTrainer):
    """A run that sends a signal to itself in the middle of an iteration."""

    at, number, times = 7, signal.SIGTERM, 1

    def step(self, iteration: int) -> dict[str, float]:
        losses = super().step(iteration)
        if iteration == self.at:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)
        return losses


def run(kind: type[CoSimGenTrainer], data: TrainingSet, out: Path, until: int = 12) -> CoSimGenTrainer:
    made = kind(data, out, SETTINGS, Accelerator(cpu=True, mixed_precision="no"), encode=letters)
    made.run(checkpoint_every=1000, sample_every=1000, log_every=2, until=until)
    return made


@pytest.mark.parametrize(("number", "leaves"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_writes_the_checkpoint_and_the_run_goes_on_to_the_same_losses(
    toy: TrainingSet,
    tmp_path: Path,
    number: signal.Signals,
    leaves: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = signal.getsignal(number)
    monkeypatch.setattr(Interrupted, "number", number)
    with pytest.raises(leaves) as left:
        run(Interrupted, toy, tmp_path / "parts")
    if isinstance(left.value, SystemExit):
        assert left.value.code == 128 + number
    assert signal.getsignal(number) is before
    assert "stopped at iteration 8 of 12" in capsys.readouterr().err
    assert (tmp_path / "parts" / "checkpoint.safetensors").is_file()
    resumed = run(CoSimGenTrainer, toy, tmp_path / "parts")
    assert resumed.start == 8
    run(CoSimGenTrainer, toy, tmp_path / "whole")
    losses = [
        [json.loads(line)["diffusion"] for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("parts", "whole")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_second_signal_ends_the_run_at_once(
    toy: TrainingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Interrupted, "times", 2)
    monkeypatch.setattr(Interrupted, "number", signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(Interrupted, toy, tmp_path)
    assert not (tmp_path / "checkpoint.safetensors").exists()
