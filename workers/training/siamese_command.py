"""``twinset train siamese``: trains Siamese-Diffusion on a base and writes the model folder."""

from __future__ import annotations

from typing import Any

from workers.training.command_run import train
from workers.training.options import data_option, part_option, require_part, training_command


@training_command("siamese", "siamese-diffusion")
@data_option(help="With captions.")
@part_option("--base", "Of `twinset train base`, or a Stable Diffusion 1.5.")
def siamese(**options: Any) -> None:
    """Train images for masks on images, masks and captions, and write OUT/model.

    A stopped run resumes at its checkpoint; a finished one only writes OUT/model again. On several
    GPUs: accelerate launch -m service.cli train siamese ...
    """
    require_part("base")
    train("siamese-diffusion", data={"data": "dataset"}, parts=("base",))
