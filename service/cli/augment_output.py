"""Terminal output of ``twinset augment``: the plan, the finished set, and the exported dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.client import Augmentation, ExportInfo, PlanInfo


def show_plan(plan: PlanInfo, chart: Path | None) -> None:
    """Prints the plan as a table of class shares; also writes its chart if ``chart`` is given."""
    import base64

    from rich.table import Table

    from service.augmentations.pool import FOUND_SHARE
    from service.cli.console import escape, out

    document = plan.model_dump()
    shares = document["plan"]
    out.print(
        f"[bold]{escape(document['dataset'])}[/] by [bold]{escape(document['model'])}[/]: "
        f"{shares['count']} twins after {shares['items']} real items, seed {document['seed']}",
        soft_wrap=True,
    )
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for heading in ("class", "real", "target", "planned", ""):
        table.add_column(heading, justify="left" if heading in ("class", "") else "right")
    for one in shares["classes"]:
        colour = ",".join(map(str, one["colour"]))
        table.add_row(
            f"[rgb({colour})]■[/] {escape(one['name'])}",
            f"{one['real']:.1%}",
            "" if one["target"] is None else f"{one['target']:.1%}",
            f"{one['planned']:.1%}",
            "" if one["target"] is None else "[green]✓[/]" if one["met"] else "[yellow]not reached[/]",
        )
    out.print(table)
    has = "" if shares["by"] == "pixels" else f" (an image has a class if it covers {FOUND_SHARE:.1%} of its pixels)"
    out.print(f"[dim]Shares of {shares['by']}{has}. At most {shares['max_samples']} samples will be made.[/]")
    for note in shares["notes"]:
        out.print(f"[yellow]![/] {escape(note)}", soft_wrap=True)
    if chart is not None:
        chart.write_bytes(base64.b64decode(document["picture"]))
        out.print(f"[dim]Chart[/] {escape(str(chart))}", soft_wrap=True)


def print_summary(augmentation: Augmentation) -> None:
    """Prints how the set ended: accepted and rejected twins, and the class shares it achieved."""
    from service.cli.console import duration, err, escape, out

    info = augmentation.info.model_dump()
    seconds = f" in {duration(info['seconds'])}" if info["seconds"] is not None else ""
    out.print(
        f"[green]✓[/] [bold]{info['done']}[/] of {info['count']} twins accepted, of {info['tried']} made{seconds}"
    )
    if info["rejected"]:
        out.print(
            f"  [dim]{'Rejected':<16}[/]",
            ", ".join(f"{count} {why.replace('_', ' ')}" for why, count in info["rejected"].items()),
        )
    if info["achieved"]:
        shown = [(name, share) for name, share in info["achieved"].items() if share > 0]
        out.print(
            f"  [dim]{'Achieved shares':<16}[/]",
            escape(", ".join(f"{name} {share:.1%}" for name, share in shown)),
            soft_wrap=True,
        )
    for name, found in (info["objects"] or {}).items():
        counts = ", ".join(f"{number} {how.replace('_', ' ')}" for how, number in found.items())
        out.print(f"  [dim]{'Objects':<16}[/]", escape(f"{name}: {counts}"), soft_wrap=True)
    if augmentation.state.value != "succeeded":
        reason = f": {escape(info['reason'])}" if info["reason"] else ""
        err.print(f"[bold red]Error:[/] the set ended {augmentation.state.value}{reason}", soft_wrap=True)


def print_dataset(info: ExportInfo, target: Path) -> int:
    """Prints what the written dataset contains and where it is. Returns how many items were left out."""
    from rich.text import Text

    from service.cli.console import out
    from service.cli.sources import print_notes, print_skipped_items

    document = info.model_dump()
    out.print(
        f"  [dim]{'Pairs':<16}[/]",
        f"{document['items']['real']} real, {document['items']['synthetic']} synthetic, as {document['format']}",
    )
    out.print(f"  [dim]{'Dataset':<16}[/]", Text(str(target)), soft_wrap=True)
    out.print(f"  [dim]{'Description':<16}[/]", Text(f"{target}/README.md, {target}/manifest.jsonl"), soft_wrap=True)
    print_notes(info.notes or ())
    return print_skipped_items(info.skipped_details or ())
