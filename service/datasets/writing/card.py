"""The dataset card, ``README.md``: the set's origin, contents, licences, intended use and limits."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from service.datasets.classes import ClassList
from service.datasets.writing.about import ExportAbout, ModelAbout
from service.datasets.writing.notes import export_notes
from service.datasets.writing.options import ExportOptions
from service.datasets.writing.prepare import PreparedItem
from service.datasets.writing.state import WriterState
from service.kit.markdown import code, plain

NEVER_CLINICAL = (
    "Never use it for clinical decisions: not for diagnosis, not for treatment, and not as the only evidence that a "
    "system which makes such decisions works. Test on real data that no model here was trained on."
)
_SYNTHETIC = (
    "Synthetic images were drawn by generative models. They show no real place, patient or specimen; they may hold "
    "what no real image would, and they repeat what was rare or wrong in the data that the models learned from."
)
_MAX_MODELS = 100


class CardTally:
    """The numbers on the card, counted item by item."""

    def __init__(self) -> None:
        self.items: Counter[tuple[str, str]] = Counter()
        self.models: Counter[str] = Counter()
        self.seeds: dict[str, tuple[int, int]] = {}
        self.between_splits = 0
        self.renamed = 0

    def add(self, prepared: PreparedItem) -> None:
        """Counts an item, with the ``model`` and ``seed`` of its metadata."""
        item = prepared.item
        self.items[prepared.split, item.source] += 1
        self.renamed += prepared.renamed_from is not None
        model, seed = item.metadata.get("model"), item.metadata.get("seed")
        if isinstance(model, str) and (model in self.models or len(self.models) < _MAX_MODELS):
            self.models[model] += 1
            if isinstance(seed, int):
                low, high = self.seeds.get(model, (seed, seed))
                self.seeds[model] = (min(low, seed), max(high, seed))

    def state(self) -> WriterState:
        """All counts."""
        return WriterState(
            {
                "items": [[*key, count] for key, count in self.items.items()],
                "models": list(map(list, self.models.items())),
                "seeds": {model: list(seeds) for model, seeds in self.seeds.items()},
                "between_splits": self.between_splits,
                "renamed": self.renamed,
            }
        )

    def restore(self, state: WriterState) -> None:
        """Restores the counts."""
        self.items = Counter({(split, source): count for split, source, count in state.values["items"]})
        self.models = Counter(dict(state.values["models"]))
        self.seeds = {model: (low, high) for model, (low, high) in state.values["seeds"].items()}
        self.between_splits = state.values["between_splits"]
        self.renamed = state.values["renamed"]

    def splits(self) -> dict[str, int]:
        """Items by split."""
        return {
            split: sum(count for (of_split, _), count in self.items.items() if of_split == split)
            for split in _splits(self)
        }

    def of(self, source: str) -> int:
        """Items of a source."""
        return sum(count for (_, from_source), count in self.items.items() if from_source == source)


def dataset_card(
    about: ExportAbout,
    classes: ClassList,
    options: ExportOptions,
    tally: CardTally,
    layout: Sequence[str],
    front_matter: str = "",
) -> str:
    """The card as Markdown, ``front_matter`` at its head."""
    real, synthetic = tally.of("real"), tally.of("synthetic")
    lines = [
        front_matter + f"# {plain(about.title)}",
        "",
        f"{real + synthetic} pairs of an image and its segmentation mask: {synthetic} synthetic, {real} real. "
        f"Format: {options.format}.",
        *(["", f"**{_SYNTHETIC}**"] if synthetic else []),
        "",
        "| split | real | synthetic |",
        "|---|---|---|",
        *(
            f"| {plain(split)} | {tally.items[split, 'real']} | {tally.items[split, 'synthetic']} |"
            for split in _splits(tally)
        ),
        "",
        _about_splits(options, tally),
        *(f"\n{_sentence(note)}" for note in export_notes(options, tally.splits(), tally.renamed)),
        "",
        "## Files",
        "",
        *(f"- {line}" for line in layout),
        "- `manifest.jsonl`: a line for each item: name, source (real or synthetic), split, sha256 of its files, and "
        "its metadata",
        "",
        "## Classes",
        "",
        "| index | class | colour |",
        "|---|---|---|",
        *(
            f"| {entry.index} | {plain(entry.name)}{' (background)' if entry.background else ''} "
            f"| #{bytes(entry.colour).hex()} |"
            for entry in classes.classes
        ),
        "| 255 | none: ignore | |",
        "",
        *_how_made(about, tally),
        *_licences(about),
        "## Intended use and limits",
        "",
        "Training and augmenting segmentation models, together with real data.",
        "",
        NEVER_CLINICAL,
        *(line for model in about.models for line in _uses(model)),
        *(line for note in about.notes for line in ("", plain(note))),
    ]
    return "\n".join(lines) + "\n"


def _splits(tally: CardTally) -> list[str]:
    return sorted({split for split, _ in tally.items})


def _about_splits(options: ExportOptions, tally: CardTally) -> str:
    if options.splits is None:
        renamed = ", ".join(f"{old} became {new}" for old, new in options.split_map.items())
        return f"Items keep the splits of their sources{f'; {renamed}' if renamed else ''}."
    shares = ", ".join(f"{plain(name)} {share:g}" for name, share in options.splits.items())
    skipped = (
        f" {tally.between_splits} items merged from masks of different splits were skipped."
        if tally.between_splits
        else ""
    )
    return (
        f"Splits are drawn by source mask ({shares}; seed {options.seed}), so that no mask is in two of them.{skipped}"
    )


def _how_made(about: ExportAbout, tally: CardTally) -> list[str]:
    known = {model.id for model in about.models}
    models = [*about.models, *(ModelAbout(id=name) for name in tally.models if name not in known)]
    if not models and not about.parameters and not about.seeds:
        return []
    lines = ["## How it was made", ""]
    for model in models:
        seeds = tally.seeds.get(model.id)
        parts = [
            f"{tally.models[model.id]} items" if tally.models[model.id] else "",
            f"seeds {seeds[0]} to {seeds[1]}" if seeds else "",
        ]
        detail = ", ".join(part for part in parts if part)
        title = f": {plain(model.title)}" if model.title else ""
        lines.append(f"- {code(model.id)}{title}{f' ({detail})' if detail else ''}")
    if about.seeds:
        lines.append(f"- seeds of the jobs: {', '.join(map(str, about.seeds))}")
    if about.parameters:
        lines += [
            "- parameters:",
            "",
            "```json",
            json.dumps(about.parameters, ensure_ascii=True, sort_keys=True, indent=1),
            "```",
        ]
    return [*lines, ""]


def _licences(about: ExportAbout) -> list[str]:
    if not about.models and not about.real_data:
        return []
    lines = ["## Licences", "", "Generated images may be bound by the licence of the training data.", ""]
    for model in about.models:
        lines.append(f"- model {code(model.id)}: {plain(model.licence)}")
        lines += [f"  - trained on {plain(data.name)}: {plain(data.licence)}" for data in model.training_data]
    lines += [f"- real images from {plain(data.name)}: {plain(data.licence)}" for data in about.real_data]
    return [*lines, ""]


def _uses(model: ModelAbout) -> list[str]:
    texts = [text for text in (model.intended_use, model.limits_of_use) if text]
    return ["", f"Of {code(model.id)}: {' '.join(map(plain, texts))}"] if texts else []


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
