"""The output folder of ``twinset demo`` and ``twinset generate``: a job's twins, manifest, card and contact sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_store.card import ModelCard, write_card
from service.cli.download import FetchedTwin, fetch_twins
from service.cli.http_client import ApiClient
from service.cli.progress import twin_bar
from service.kit.contact_sheet import MAX_TWINS, SheetTwin, draw_contact_sheet

_CLASSES_IN_CAPTION = 4


@dataclass(frozen=True)
class TwinFolder:
    """A folder of downloaded twins.

    It holds ``images/``, ``masks/`` and ``instances/`` if the twins have any, ``manifest.jsonl``, ``card.json`` and
    ``contact_sheet.png``.
    """

    path: Path
    twins: int
    masks: int
    instances: int
    contact_sheet: Path | None


def write_twin_folder(client: ApiClient, job: dict[str, Any], card: ModelCard, folder: Path) -> TwinFolder:
    """Downloads the twins of an ended job into ``folder``, with the manifest and a contact sheet of the first ones.

    The manifest is the server's: its keys are those of the object store, while the files here are named by index. The
    model's card is included, since only it says what the numbers in the masks mean.
    """
    folder.mkdir(parents=True, exist_ok=True)
    first: list[FetchedTwin] = []
    count = masks = instances = 0
    with twin_bar() as bar:
        task = bar.add_task("Fetching", total=job["done"], done=0)
        for twin in fetch_twins(client, job["id"], folder):
            count += 1
            masks += twin.mask is not None
            instances += twin.sample["instances"] is not None
            bar.update(task, completed=count, done=count)
            if len(first) < MAX_TWINS:
                first.append(twin)
    client.save_manifest(job["id"], folder / "manifest.jsonl")
    write_card(folder, card)
    return TwinFolder(folder, count, masks, instances, _write_sheet(first, count, job, card, folder) if first else None)


def _write_sheet(twins: Sequence[FetchedTwin], count: int, job: dict[str, Any], card: ModelCard, folder: Path) -> Path:
    parameters = job["parameters"]
    notes = [parameters["model"], f"seed {parameters['seed']}", f"{parameters['steps']} steps"]
    notes.append(f"guidance {parameters['guidance_scale']:g}")
    if count > len(twins):
        notes.append(f"the first {len(twins)} of {count} twins")
    sheet = draw_contact_sheet(
        [SheetTwin(twin.image, twin.mask, _caption(twin.sample)) for twin in twins],
        card.classes,
        title=_title(parameters, card),
        subtitle=" · ".join(notes),
    )
    path = folder / "contact_sheet.png"
    sheet.save(path, optimize=True)
    return path


def _title(parameters: dict[str, Any], card: ModelCard) -> str:
    if parameters["classes"] is not None:
        return card.prompt_for(parameters["classes"])
    masks = len(parameters["mask"] or ())
    given = f"{masks} given mask{'' if masks == 1 else 's'}" if masks else ""
    return " · ".join(part for part in (parameters["prompt"], given) if part)


def _caption(sample: dict[str, Any]) -> str:
    """A caption such as ``3   water 61 %, land 30 %   (98 % sure)``; only the index for an image without a mask."""
    if sample["mask"] is None:
        return str(sample["index"])
    found = [f"{entry['name']} {100 * entry['share']:.0f} %" for entry in sample["classes"][:_CLASSES_IN_CAPTION]]
    sure = f"   ({100 * sample['confident_share']:.0f} % sure)" if sample["confident_share"] is not None else ""
    return f"{sample['index']}   {', '.join(found) or 'no class'}{sure}"
