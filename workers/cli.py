"""The commands that need what a worker needs: ``twinset train`` and ``twinset evaluate``.

``service.cli`` finds them by the entry-point group ``twinset.commands``. Loading this module loads neither torch nor
the trainer, so that ``twinset --help`` stays quick, and a machine without torch is told what to install.
"""

from __future__ import annotations

import click

from service.cli.lazy import LazyGroup
from service.local.stack import require_worker_parts
from workers.runtime.malloc import keep_memory


class WorkerGroup(LazyGroup):
    """A group whose commands need torch."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        require_worker_parts()
        keep_memory()
        return super().parse_args(ctx, args)


@click.group(
    cls=WorkerGroup,
    table={
        "cosimgen": (
            "workers.training.cosimgen_command:cosimgen",
            "CoSimGen itself: pairs from class sets and prompts.",
        ),
        "superres": (
            "workers.training.superres_command:superres",
            "The super-resolution of CoSimGen's pairs.",
        ),
        "autoencoder": (
            "workers.training.autoencoder_command:autoencoder",
            "The latent autoencoder of a base.",
        ),
        "base": (
            "workers.training.latent_base_command:base",
            "A base for the mask systems: images from captions.",
        ),
        "siamese": (
            "workers.training.siamese_command:siamese",
            "Siamese-Diffusion on a base: images for masks.",
        ),
        "pathdiff": (
            "workers.training.pathdiff_command:pathdiff",
            "PathDiff on a base: images for text, masks or both, from unpaired data.",
        ),
    },
)
def train() -> None:
    """Train a model on a folder of images and masks."""


@click.group(
    cls=WorkerGroup,
    table={
        "cosimgen": (
            "workers.evaluation.command:cosimgen",
            "A CoSimGen model against the test split of a dataset.",
        ),
        "pathdiff": (
            "workers.evaluation.mask_command:pathdiff",
            "A PathDiff model: faithfulness to masks, hold of the text.",
        ),
        "siamese": (
            "workers.evaluation.mask_command:siamese",
            "A Siamese-Diffusion model, and its ablations side by side.",
        ),
    },
)
def evaluate() -> None:
    """Measure what a model makes, against real images and masks."""
