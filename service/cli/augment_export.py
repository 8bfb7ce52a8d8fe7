"""The export at the end of ``twinset augment``: checked before anything is made, since twins take long."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from service.augmentations.joining import ClassJoin
    from service.client import DatasetRef, Twinset
    from service.datasets.classes import ClassList


def export_options(
    client: Twinset, dataset: DatasetRef, model: str, class_map: Mapping[str, str | None], options: Mapping[str, Any]
) -> dict[str, Any]:
    """The options of the export of a set of ``model`` (name@version). Raises a usage error if it would be refused.

    ``options`` are those of the command.
    """
    from service.augmentations.joining import ClassJoin, join_fault, twins_fault
    from service.datasets.splits import check_writable
    from service.errors import InvalidDataset

    keep, dropped = options["keep"], options["dropped"]
    asked = ClassJoin(options["rename"], keep)
    card = client.model(model).card
    if options["only_twins"]:
        fault = twins_fault(card, asked, dropped)
    else:
        classes = _classes(dataset)
        if not options["rename"] and keep is None:
            asked, fault = _joined(dataset, classes, card, class_map)
        else:
            asked = ClassJoin(_own_names(classes, card, class_map) | asked.rename, keep)
            fault = join_fault(dataset.info.id, classes, card, asked, dropped)
        if options["splits"] is None:
            try:
                check_writable(dataset.report().splits, {})
            except InvalidDataset as error:
                fault = fault or error.detail
    if fault is not None:
        raise click.UsageError(f"the twins could not be exported, so none is made: {fault}")
    given = {"splits": options["splits"], "rename": asked.rename, "dropped": dropped}
    given |= {"classes": None if asked.keep is None else list(asked.keep)}
    return {name: value for name, value in given.items() if value}


def _classes(dataset: DatasetRef) -> ClassList:
    from service.datasets.classes import ClassList

    listed = dataset.info.classes or ()
    colours = {one.name: one.colour for one in listed if one.colour is not None}
    background = next((one.name for one in listed if one.background), None)
    return ClassList.of([one.name for one in listed], colours, background=background)


def _own_names(classes: ClassList, card: Any, class_map: Mapping[str, str | None]) -> dict[str, str]:
    from service.augmentations.joining import dataset_names
    from service.augmentations.matching import match_classes
    from service.kit.validation import Faults

    match = match_classes(classes, card, class_map, Faults())
    return {} if match is None else dataset_names(classes, card, match)


def _joined(
    dataset: DatasetRef, classes: ClassList, card: Any, class_map: Mapping[str, str | None]
) -> tuple[ClassJoin, str | None]:
    """What the export needs if nothing was asked for, and why that has to be asked for."""
    from service.augmentations.joining import ClassJoin, card_names, class_join
    from service.augmentations.matching import match_classes
    from service.kit.validation import Faults

    match = match_classes(classes, card, class_map, Faults())
    own = ClassJoin(_own_names(classes, card, class_map))
    join = None if match is None else class_join(dataset.info.id, classes, card, match)
    if join == own:
        return own, None
    words = ["--only-twins"] if join is None else _words(join, own)
    what = "write the twins alone" if join is None else "make the classes the same, and those of no class 255 (ignore)"
    return own, (
        f"the classes of {dataset.info.id} are {', '.join(classes.names)}, those of {card.id} "
        f"{', '.join(card_names(card))}. To {what}, add: {shlex.join(words)}"
    )


def _words(join: ClassJoin, own: ClassJoin) -> list[str]:
    """The options that ask for the changes."""
    words = [word for old, new in join.rename.items() if old not in own.rename for word in ("--rename", f"{old}={new}")]
    return [*words, *(["--classes", ",".join(join.keep)] if join.keep is not None else [])]
