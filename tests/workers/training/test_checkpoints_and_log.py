"""The log and the checkpoints of a training, when a run is resumed, damaged or out of disk."""

from __future__ import annotations

import errno
from pathlib import Path

import click
import pytest
import torch
from safetensors.torch import save_file

from workers.training.checkpoints import CheckpointInvalid, load_checkpoint, save_checkpoint
from workers.training.command_support import errors_in_one_line
from workers.training.training_log import TrainingLog, read_log


def test_a_resumed_log_drops_repeated_lines_and_short_lines_give_their_number_of_iterations(
    tmp_path: Path,
) -> None:
    def run(start: int, end: int, partial: bool) -> list[tuple[int, float, int | None]]:
        log = TrainingLog(tmp_path / "log.jsonl", start, end, every=4, show=True)
        for iteration in range(start, end):
            log.add(iteration, {"loss": float(iteration)})
        if partial:
            log.write_line(end)
        log.close()
        return [(line["iteration"], line["loss"], line.get("averaged")) for line in read_log(tmp_path / "log.jsonl")]

    assert run(0, 8, partial=False) == [(4, 1.5, None), (8, 5.5, None)]
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"iteration": 12, "lo')  # cut short by a kill
    assert run(6, 10, partial=True) == [(4, 1.5, None), (8, 6.5, 2), (10, 8.5, 2)]


@pytest.mark.parametrize("previous", [True, False])
def test_damaged_checkpoints_are_never_overwritten(tmp_path: Path, previous: bool) -> None:
    for iteration in (1, 2):
        save_checkpoint(tmp_path, iteration, {"w": torch.full((4,), float(iteration))}, {"settings": {}})
    newest, older = tmp_path / "checkpoint.safetensors", tmp_path / "checkpoint-previous.safetensors"
    newest.write_bytes(newest.read_bytes()[:-3])
    if previous:
        assert load_checkpoint(tmp_path)[0] == 1
        return
    save_file({"w": torch.zeros(1)}, older)  # weights, but no checkpoint
    message = r"checkpoint\.safetensors is damaged .*checkpoint-previous\.safetensors holds no run.*start over"
    with pytest.raises(CheckpointInvalid, match=message):
        load_checkpoint(tmp_path)


def test_half_a_checkpoint_is_not_left_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, 1, {"w": torch.ones(4)}, {})

    def full(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("workers.training.checkpoints.save_file", full)
    with (
        pytest.raises(
            click.ClickException,
            match=r"No space left on device. Make room and give the same command "
            r"again",
        ),
        errors_in_one_line(),
    ):
        save_checkpoint(tmp_path, 2, {"w": torch.ones(4)}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.safetensors"]
    assert load_checkpoint(tmp_path)[0] == 1
