"""``twinset models``: lists models, shows their cards, and registers new ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from model_store.card import ModelCard


@click.group()
def models() -> None:
    """List, show and add models.

    Models are bundled with Twinset, or registered in the store of TWINSET_STORE_URL (by default that of 'twinset up' in
    this folder).
    """


@models.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_models(as_json: bool) -> None:
    """List all models, newest version first."""
    from service.cli.console import escape, out
    from service.registry.catalogue import Catalogue

    cards = Catalogue(_store()).cards(tenant=None)
    if as_json:
        import json

        click.echo(json.dumps([card.model_dump(mode="json") for card in cards], indent=2, ensure_ascii=False))
        return
    if not cards:
        out.print(
            "There are no models. Train one with 'twinset train', and add it with 'twinset models add'.",
            soft_wrap=True,
        )
        return

    for card in cards:
        classes = f"{len(card.queryable)} class{'' if len(card.queryable) == 1 else 'es'}"
        facts = ", ".join(card.inputs), classes, _sizes(card), _megabytes(card), _origin(card)
        out.print(f"[bold cyan]{card.id}[/]  {escape(card.title)}", soft_wrap=True)
        out.print(f"    [dim]{' · '.join(facts)}[/]", soft_wrap=True)


@models.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print the card as JSON.")
def show(name: str, as_json: bool) -> None:
    """Show the card of a model, NAME or NAME@VERSION."""
    from service.registry.catalogue import Catalogue
    from service.registry.references import owner_named_in

    card = Catalogue(_store()).resolve(name, tenant=owner_named_in(name))
    if as_json:
        click.echo(card.model_dump_json(indent=2))
        return

    from rich.table import Table

    from model_store.card import join_words
    from service.cli.console import escape, out
    from service.cli.model_figures import figures_summary, figures_table

    out.print(f"[bold cyan]{card.id}[/]  [bold]{escape(card.title)}[/]\n{escape(card.description, lines=True)}\n")
    swatches = [f"[rgb({','.join(map(str, entry.colour))})]■[/] {escape(entry.name)}" for entry in card.classes]
    defaults, limits = card.defaults, card.limits
    rows: list[tuple[str, str]] = [
        ("System", card.system),
        ("Takes", ", or ".join(join_words(chosen) for chosen in card.accepted_inputs)),
        ("Classes", "  ".join(swatches)),
        ("Prompts", escape(_prompts(card), lines=True) if "prompt" in card.inputs else ""),
        ("Sizes", f"{_sizes(card)}; {card.default_size_px} px by default"),
        ("Steps", f"{limits.steps_min} to {limits.steps_max}; default {defaults.steps}"),
        (
            "Guidance",
            f"{limits.guidance_min:g} to {limits.guidance_max:g}; default {defaults.guidance_scale:g}",
        ),
        (
            "Guidance target",
            f"{', '.join(card.guidance_targets)}; default {card.guidance_target}" if card.guidance_targets else "",
        ),
        ("Weights", f"{_megabytes(card)}, {_origin(card)}"),
        ("Trained on", "\n".join(map(escape, _training_data(card.training_data)))),
        ("Measured", escape(figures_summary(card.measured))),
        ("Differs from paper", f"in {len(card.deviations)} points, listed with --json" if card.deviations else ""),
        ("Intended use", escape(card.intended_use)),
        ("Limits of use", escape(card.limits_of_use)),
        ("Licence", escape(card.licence)),
    ]
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(ratio=1)
    for label, text in rows:
        if text:
            table.add_row(label, text)
    out.print(table)
    figures = figures_table(card.measured)
    if figures is not None:
        out.print()
        out.print(figures)


@models.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def add(folder: Path) -> None:
    """Register the model in FOLDER.

    FOLDER holds a card.json and the *.safetensors that it names. Every file is checked against the card's sha256.
    A registered version never changes.
    """
    from service.cli.console import out
    from service.registry.register import register_folder

    card, is_new = register_folder(folder, _store(), tenant=None)
    if is_new:
        out.print(
            f"[green]Added[/] [bold cyan]{card.id}[/]. Try: twinset generate --model {card.id} --help",
            soft_wrap=True,
        )
    else:
        out.print(
            f"[bold cyan]{card.id}[/] is registered already, with the same card and weights. Nothing to do.",
            soft_wrap=True,
        )


def _store() -> Any:
    from service.settings import read_settings
    from service.store.opening import open_store

    return open_store(read_settings())


def _origin(card: ModelCard) -> str:
    from model_store import bundled_folder

    return "bundled" if (bundled_folder() / card.name / card.version / "card.json").is_file() else "store"


def _sizes(card: ModelCard) -> str:
    return ", ".join(map(str, card.sizes_px)) + " px"


def _megabytes(card: ModelCard) -> str:
    return f"{sum(file.bytes for file in card.files.values()) / 1e6:.1f} MB"


def _prompts(card: ModelCard) -> str:
    """The card's example prompts, or one made from its template."""
    return "\n".join(card.example_prompts) or card.prompt_for(card.queryable[:3])


def _training_data(entries: Sequence[dict[str, Any]]) -> list[str]:
    """One line per dataset: its name, licence and use."""
    uses: dict[str, list[str]] = {}
    for entry in entries:
        licence = f" ({entry['licence']})" if entry.get("licence") else ""
        use = f"{entry['images']} for the {entry['for']}" if {"images", "for"} <= entry.keys() else ""
        uses.setdefault(f"{entry.get('name', 'unnamed data')}{licence}", []).append(use)
    return [f"{data}: {', '.join(filter(None, found))}" if any(found) else data for data, found in uses.items()]
