"""The source for twins as ``twinset generate`` and a job's archive store them: images, masks, manifest, model card."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

from model_store import bundled_folder
from model_store.card import NAME_PATTERN, VERSION_PATTERN, CardInvalid, ModelCard, parse_card
from service.datasets.classes import ClassList
from service.datasets.reading.class_lists import class_list
from service.datasets.reading.entry import Annotation, Entry
from service.datasets.reading.faults import naming_faults
from service.datasets.reading.instance_maps import with_instance_map
from service.datasets.reading.mask_decoder import MaskDecoder
from service.datasets.reading.provenance import Provenance
from service.datasets.reading.report import EntryFault, Findings
from service.errors import InvalidDataset
from service.kit.documents import parse_json

_MANIFEST = "manifest.jsonl"
_FOLDERS = {"image": "images", "mask": "masks", "instances": "instances"}
_MAX_LINE_BYTES = 1 << 20
_MAX_SAMPLED = 16
_PARAMETERS = ("steps", "guidance_scale", "guidance_target", "eta", "size_px", "sampler")
_MADE_ON = ("batch_shape", "shapes", "dtype", "device", "build")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class TwinsSource:
    """Source of ``images/``, ``masks/`` and ``instances/`` by index, with a line per twin in ``manifest.jsonl``.

    The classes are those of the model's card: ``card.json``, or that of the bundled model which the manifest names. All
    items are synthetic; files that do not match the manifest's hashes are not read.
    """

    format = "twins"

    def __init__(self, root: Path, classes: ClassList | None = None) -> None:
        """Raises InvalidDataset for a folder without the model's card, or with the card of another model."""
        self.root = root
        first = next(_lines(root), None)
        if first is None:
            raise InvalidDataset(
                f"{_MANIFEST} lists no twins; fetch the job again with 'twinset generate', or its archive"
            )
        self.model = str(first["model"])
        self.card = _card(root, self.model)
        self.classes = classes or card_classes(self.card)

    @cached_property
    def job_seeds(self) -> tuple[int, ...]:
        """The seeds of the twins' jobs, ascending."""
        return tuple(sorted({line["job_seed"] for line in _lines(self.root) if isinstance(line.get("job_seed"), int)}))

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """The sampling parameters of the first twin; all twins of a job have the same."""
        return _parameters(next(_lines(self.root)))

    @naming_faults
    def entries(self, findings: Findings) -> Iterator[Entry]:
        """The twins in the order of the manifest; those without a mask go to ``findings``."""
        for line in _lines(self.root):
            # file names are made from the index alone: a manifest's text is never used as a path
            file = f"{line['index']:08d}.png"
            files = {what: self.root / folder / file for what, folder in _FOLDERS.items() if line.get(what) is not None}
            image = self.root / "images" / file
            if line["model"] != self.model:
                other = line["model"][:80]
                raise InvalidDataset(
                    f"{_MANIFEST} has twins of {self.model} and of {other}; use a folder of its own for each model"
                )
            if not image.is_file():
                findings.add("missing_partner", f"images/{file}", f"{_MANIFEST} lists it, but it is not there")
                continue
            if line.get("mask") is None:
                findings.add("missing_partner", f"images/{file}", "it was made from text alone and has no mask")
                continue
            yield Entry(
                name=f"{line['job']}/{line['index']:08d}",
                image=image,
                annotate=partial(self._annotate, line, files),
                caption=twin_caption(line, self.card),
                provenance=Provenance(
                    source="synthetic", source_mask=twin_source_mask(line), metadata=twin_metadata(line)
                ),
            )

    def _annotate(self, line: Mapping[str, Any], files: Mapping[str, Path], width: int, height: int) -> Annotation:
        for what, path in files.items():
            try:
                found = hashlib.sha256(path.read_bytes()).hexdigest()
            except OSError as error:
                raise EntryFault("missing_partner", f"its {what} cannot be read ({error.strerror})") from None
            recorded = line[what].get("sha256") if isinstance(line[what], dict) else None
            if found != recorded:
                raise EntryFault(
                    "damaged", f"its {what} has sha256 {found[:12]}..., but {_MANIFEST} has {str(recorded)[:12]}..."
                )
        mask, numbered = files["mask"], files.get("instances")
        labels = MaskDecoder(self.classes, own=True).read(mask, f"masks/{mask.name}").labels
        annotation = Annotation(labels)
        if numbered is None:
            return annotation
        return with_instance_map(annotation, numbered, f"instances/{numbered.name}", self.classes)


def is_twin_folder(root: Path) -> bool:
    """Whether the folder's manifest lists a job's twins, and is not that of an export."""
    # the first lines suffice: an export's manifest may be long, and has no line of a job's form
    return (root / "images").is_dir() and next(_lines(root, max_lines=_MAX_SAMPLED), None) is not None


def card_classes(card: ModelCard) -> ClassList:
    """A model's classes; the background is the only one that is not queryable, if exactly one is not.

    Raises InvalidDataset for classes that are not consistent.
    """
    unqueryable = [entry.name for entry in card.classes if not entry.queryable]
    names = [entry.name for entry in card.classes]
    return class_list(
        names, {entry.name: entry.colour for entry in card.classes}, unqueryable[0] if len(unqueryable) == 1 else True
    )


def _lines(root: Path, max_lines: int | None = None) -> Iterator[dict[str, Any]]:
    """The twins' lines among all lines of the manifest, or among the first ``max_lines``; one in memory at a time."""
    path = root / _MANIFEST
    if not path.is_file() or path.is_symlink():
        return
    with path.open("rb") as file:
        for line in islice(iter(partial(file.readline, _MAX_LINE_BYTES), b""), max_lines):
            try:
                entry = parse_json(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and entry.get("format") == 1 and _is_twin(entry):
                yield entry


def _is_twin(entry: Mapping[str, Any]) -> bool:
    index = entry.get("index")
    return (
        isinstance(index, int)
        and 0 <= index < 10**12
        and all(isinstance(entry.get(key), str) for key in ("job", "model"))
        and isinstance(entry.get("image"), dict)
        and "key" in entry["image"]
    )


def _card(root: Path, model: str) -> ModelCard:
    """The card of the model that made the twins. Raises InvalidDataset that explains how to get it."""
    name, _, version = model.partition("@")
    folder = root if (root / "card.json").is_file() else None
    if folder is None and re.fullmatch(NAME_PATTERN, name) and re.fullmatch(VERSION_PATTERN, version):
        folder = bundled_folder() / name / version
    if folder is None or not (folder / "card.json").is_file():
        raise InvalidDataset(
            f"the folder does not list the classes of {model[:80]!r}: put the model's card beside {_MANIFEST} with "
            f"twinset models show {model[:80]} --json > card.json"
        )
    if (size := (folder / "card.json").stat().st_size) > _MAX_LINE_BYTES:
        raise InvalidDataset(
            f"card.json has {size} bytes; the limit is {_MAX_LINE_BYTES}. Put the model's own card there: twinset "
            f"models show {model[:80]} --json > card.json"
        )
    try:
        card = parse_card((folder / "card.json").read_bytes(), where="card.json")
    except CardInvalid as error:
        raise InvalidDataset(f"{error}; put the model's own card there") from None
    if card.id != model:
        raise InvalidDataset(
            f"card.json is the card of {card.id}, but the twins are of {model[:80]!r}; put that model's card there"
        )
    return card


def twin_source_mask(line: Mapping[str, Any]) -> str | None:
    """The sha256 of the uploaded mask that the twin was drawn for, whatever the size of the twin."""
    given = line.get("given_mask")
    digest = given.get("upload") if isinstance(given, dict) else None
    return digest if isinstance(digest, str) and _DIGEST.fullmatch(digest) else None


def twin_caption(line: Mapping[str, Any], card: ModelCard) -> str | None:
    """The twin's prompt, or the card's prompt for the requested classes."""
    prompt, classes = line.get("prompt"), line.get("classes")
    if isinstance(prompt, str) and prompt:
        return prompt
    if isinstance(classes, list) and all(isinstance(name, str) for name in classes):
        return card.prompt_for(classes) if classes else None
    return None


def _parameters(line: Mapping[str, Any]) -> dict[str, Any]:
    return {key: line[key] for key in _PARAMETERS if line.get(key) is not None}


def twin_metadata(line: Mapping[str, Any]) -> dict[str, Any]:
    """The twin's metadata for an export: its model, job, seeds, request, parameters, scores and machine."""
    copied = (
        "model",
        "weights_sha256",
        "system",
        "job",
        "index",
        "seed",
        "job_seed",
        "prompt",
        "classes",
        "given_mask",
        "classes_found",
    )
    return {
        **{key: line[key] for key in copied if line.get(key) is not None},
        "parameters": _parameters(line),
        "scores": {key: line[key] for key in ("confident_share", "mean_confidence") if line.get(key) is not None},
        "made_on": {key: line[key] for key in _MADE_ON if key in line},
    }
