"""``twinset train`` and ``twinset evaluate``: the commands that need torch.

``service.cli`` finds them by the entry-point group ``twinset.commands``. Importing this module loads neither torch nor
the trainer, so ``twinset --help`` stays fast, and without torch the commands say what to install.
"""

from __future__ import annotations

import click

from service.cli.lazy import LazyGroup
from workers.runtime.malloc import keep_memory


class WorkerGroup(LazyGroup):
    """A group whose commands need torch, unless they are for a server."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        from service.local.stack import require_worker_parts

        # a training on a server needs no torch here
        if not any(argument.partition("=")[0] == "--url" for argument in args):
            require_worker_parts()
            keep_memory()
        return super().parse_args(ctx, args)


@click.group(
    cls=WorkerGroup,
    table={
        "cosimgen": (
            "workers.training.cosimgen_command:cosimgen",
            "Train CoSimGen: images and masks from class sets and prompts.",
        ),
        "superres": (
            "workers.training.superres_command:superres",
            "Train CoSimGen's super-resolution of images and masks.",
        ),
        "autoencoder": (
            "workers.training.autoencoder_command:autoencoder",
            "Train the latent autoencoder of a base.",
        ),
        "base": (
            "workers.training.latent_base_command:base",
            "Train a base for the next two: images from captions.",
        ),
        "siamese": (
            "workers.training.siamese_command:siamese",
            "Train Siamese-Diffusion on a base: images for masks.",
        ),
        "pathdiff": (
            "workers.training.pathdiff_command:pathdiff",
            "Train PathDiff on a base: images for text, masks or both.",
        ),
    },
)
def train() -> None:
    """Train a model on a folder of images and masks."""


@click.group(
    cls=WorkerGroup,
    table={
        "cosimgen": (
            "workers.evaluation.cosimgen_command:cosimgen",
            "Compare a CoSimGen model's twins with a dataset's test split.",
        ),
        "pathdiff": (
            "workers.evaluation.mask_command:pathdiff",
            "Measure how well a PathDiff model follows masks and text.",
        ),
        "siamese": (
            "workers.evaluation.mask_command:siamese",
            "Measure a Siamese-Diffusion model and its ablations.",
        ),
    },
)
def evaluate() -> None:
    """Measure a model's twins against real images and masks."""
