"""``twinset models``: lists models and shows their cards; its other commands are in modules of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from service.cli.model_changes import alias, delete, promote, share
from service.cli.model_place import open_models, place_options
from service.cli.model_transfers import add, export, import_model

if TYPE_CHECKING:
    from model_store.card import ModelCard
    from service.client.views import Model


@click.group()
def models() -> None:
    """List, show, add and change models.

    Models are bundled with Twinset, or registered: in the store of TWINSET_STORE_URL (by default that of 'twinset up'
    in this folder), or with --url on a server.
    """


for _command in (add, import_model, export, alias, share, promote, delete):
    models.add_command(_command)


@models.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@place_options
def list_models(as_json: bool, url: str | None, tenant: str | None) -> None:
    """List all models, newest version first; of a server, the newest version of each."""
    from service.cli.console import escape, out

    with open_models(url, tenant) as place:
        found: list[Model] = place.models()
    if as_json:
        import json

        cards = [model.card.model_dump(mode="json") for model in found]
        click.echo(json.dumps(cards, indent=2, ensure_ascii=False))
        return
    if not found:
        out.print(
            "There are no models. Train one with 'twinset train', and add it with 'twinset models add'.",
            soft_wrap=True,
        )
        return

    for model in found:
        card = model.card
        classes = f"{len(card.queryable)} class{'' if len(card.queryable) == 1 else 'es'}"
        facts = ", ".join(card.inputs), classes, _sizes(card), _megabytes(card), _origin(model)
        candidate = " [yellow]candidate[/]" if model.candidate else ""
        out.print(f"[bold cyan]{escape(model.id)}[/]{candidate}  {escape(card.title)}", soft_wrap=True)
        out.print(f"    [dim]{' · '.join(facts)}[/]", soft_wrap=True)


@models.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print the card as JSON.")
@place_options
def show(name: str, as_json: bool, url: str | None, tenant: str | None) -> None:
    """Show the card of a model, NAME, NAME@VERSION or NAME@ALIAS."""
    with open_models(url, tenant) as place:
        found: Model = place.model(name)
    card = found.card
    if as_json:
        click.echo(card.model_dump_json(indent=2))
        return

    from rich.table import Table

    from model_store.card import join_words
    from service.cli.console import escape, out
    from service.cli.model_figures import figures_summary, figures_table

    title = f"[bold cyan]{escape(found.id)}[/]  [bold]{escape(card.title)}[/]"
    out.print(f"{title}\n{escape(card.description, lines=True)}\n")
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
        ("Weights", f"{_megabytes(card)}, {_origin(found)}"),
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


def _origin(model: Model) -> str:
    from model_store import bundled_folder

    card = model.card
    if model.owner is not None:
        return f"of {model.owner}"
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
