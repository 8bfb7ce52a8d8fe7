"""``twinset train pathdiff``: trains PathDiff on a base, from unpaired text and masks, and writes the model folder."""

from __future__ import annotations

from typing import Any

from workers.training.command_run import train
from workers.training.options import data_option, list_option, part_option, require_part, training_command


@training_command("pathdiff", "pathdiff")
@data_option("--text-data", help="Images with captions.")
@data_option("--mask-data", help="Images with masks; no image in common with --text-data.")
@list_option("--text-list", "--text-data")
@list_option("--mask-list", "--mask-data")
@part_option("--base", "Of `twinset train base`, or a Stable Diffusion 1.5.")
def pathdiff(**options: Any) -> None:
    """Train images for text, masks or both on two datasets that share no image, and write OUT/model.

    A stopped run resumes at its checkpoint; a finished one only writes OUT/model again. On several
    GPUs: accelerate launch -m service.cli train pathdiff ...
    """
    require_part("base")
    train(
        "pathdiff",
        data={"text_data": "text_dataset", "mask_data": "mask_dataset"},
        lists=("text_list", "mask_list"),
        parts=("base",),
    )
