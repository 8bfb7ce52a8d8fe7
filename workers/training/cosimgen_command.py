"""``twinset train cosimgen``: trains CoSimGen and writes the model folder."""

from __future__ import annotations

from typing import Any

from workers.training.command_run import train
from workers.training.options import data_option, part_option, training_command


@training_command("cosimgen", "cosimgen")
@data_option()
@part_option("--superres", "A folder of `twinset train superres`, put into the model.")
def cosimgen(**options: Any) -> None:
    """Train CoSimGen on images and masks, and write OUT/model.

    A stopped run resumes at its checkpoint; a finished one only writes OUT/model again, so that a
    super-resolution trained meanwhile can be put in. On several GPUs: accelerate launch -m service.cli train cosimgen
    ...
    """
    train("cosimgen", data={"data": "dataset"}, parts=("superres",))
