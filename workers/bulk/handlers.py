"""The handler of each kind of run."""

from __future__ import annotations

from service.kit.run_kinds import RunKind
from workers.bulk.context import RunHandler


def handlers() -> dict[RunKind, RunHandler]:
    """The handler of each kind of run."""
    from workers.bulk.augment import cancel_augmentation, handle_augmentation
    from workers.bulk.export import handle_export
    from workers.bulk.import_dataset import handle_dataset

    return {
        RunKind.DATASET: RunHandler(handle_dataset),
        RunKind.AUGMENTATION: RunHandler(handle_augmentation, cancel_augmentation),
        RunKind.EXPORT: RunHandler(handle_export),
    }
