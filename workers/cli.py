"""The commands that need what a worker needs: ``twinset train`` and ``twinset evaluate``.

``service.cli`` finds them by the entry-point group ``twinset.commands``. Loading this module loads neither torch nor the
trainer, so that ``twinset --help`` stays quick, and a machine without torch is told what to install.
"""

from __future__ import annotations

import click

from service.cli.lazy import LazyGroup
from service.embedded.stack import require_worker_parts


class WorkerGroup(LazyGroup):
    """A group whose commands need torch."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        require_worker_parts()
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
    },
)
def evaluate() -> None:
    """Measure what a model makes, against real images and masks."""
