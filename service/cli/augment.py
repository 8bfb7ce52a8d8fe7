"""``twinset augment``: a dataset in, a set out that has so many twins more, in the format that training wants."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from service.cli.export import WRITTEN_FORMATS, named_shares, shares_option
from service.cli.numbers import FiniteFloat
from service.cli.stored_datasets import open_client, send

if TYPE_CHECKING:
    from service.client import Augmentation, DatasetRef, Plan, Twinset


def _balance(ctx: click.Context, parameter: click.Parameter, text: str | None) -> str | dict[str, float] | None:
    if text is None or text in ("even", "inverse"):
        return text
    return named_shares(ctx, parameter, text, "is neither even nor inverse, nor like water=0.2,road=0.1")


def _object(ctx: click.Context, parameter: click.Parameter, path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        given = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise click.BadParameter(f"{path} cannot be read as JSON ({error})", ctx, parameter) from None
    if not isinstance(given, dict):
        raise click.BadParameter(f"{path} holds no JSON object", ctx, parameter)
    return given


@click.command()
@click.argument("source", metavar="DATASET")
@click.option("--model", required=True, help="NAME, or NAME@VERSION; 'twinset models list' shows them.")
@click.option("--out", "target", type=click.Path(path_type=Path), help="A new folder for the set.")
@click.option("--count", type=click.IntRange(min=1), help="How many twins to add; or give --ratio.")
@click.option(
    "--ratio", type=FiniteFloat(), help="How many twins to add for each real item: 3 for three times as many."
)
@click.option(
    "--balance",
    callback=_balance,
    metavar="even|inverse|A=0.3,B=0.2",
    help="What the twins' classes should come to.  [default: as they are]",
)
@click.option("--balance-by", type=click.Choice(["pixels", "images"]), help="What a share is of.  [default: pixels]")
@click.option("--transforms", metavar="flip,scale,...", help="How real masks are changed.  [default: the usual ones]")
@click.option(
    "--prompt", multiple=True, help="A template: {classes}, {article} and {caption} are filled in. May be repeated."
)
@click.option(
    "--min-confident-share", type=FiniteFloat(), help="Least share of confident pixels, for models that draw masks."
)
@click.option(
    "--min-class-agreement", type=FiniteFloat(), help="Least share of the asked classes that are in the mask."
)
@click.option("--no-near-duplicates", is_flag=True, help="Leave out twins that look like one before.")
@click.option("--budget", type=FiniteFloat(), help="Samples made at most, for each twin wanted.  [default: 2]")
@click.option("--seed", type=int, help="Same seed and parameters, same set. Drawn if not given.")
@click.option("--steps", type=int, help="Sampling steps.  [default: the model's]")
@click.option("--guidance-scale", type=FiniteFloat(), help="How strongly the request steers.  [default: the model's]")
@click.option("--size", type=int, help="Side of image and mask in pixels.  [default: the model's]")
@click.option(
    "--request",
    "more",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    callback=_object,
    metavar="FILE.json",
    help="Anything else that POST /augmentations takes.",
)
@click.option(
    "--format",
    "wanted",
    default="folders",
    show_default=True,
    type=click.Choice(WRITTEN_FORMATS),
    help="How the set is laid out.",
)
@shares_option
@click.option("--only-twins", is_flag=True, help="Leave the real items out.")
@click.option("--dry-run", is_flag=True, help="Show the plan, and make nothing.")
@click.option(
    "--picture", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.png", help="Draw the plan, too."
)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Without a server: where models of your own are registered, and everything is kept.  [default: a temporary folder]",
)
@click.option("--url", help="A server.  [default: TWINSET_PUBLIC_URL; without either, all is done on this machine]")
def augment(
    source: str,
    target: Path | None,
    dry_run: bool,
    picture: Path | None,
    data_dir: Path | None,
    url: str | None,
    **asked: Any,
) -> None:
    """Extend a dataset with twins, as a plan says.

    DATASET is a folder or an archive, or the name of one that the server has. The plan is shown first: what each class
    comes to beside what was asked for. Then twins are made in rounds, and judged, until there are enough; the set, real
    items and twins with a manifest and a card, is written into --out. Without a server, broker, API and workers run on
    this machine for as long as it takes.
    """
    if target is None and not dry_run:
        raise click.UsageError("give --out, a new folder for the set; or --dry-run, to see the plan alone")
    if picture is not None and (picture.suffix.lower() != ".png" or not picture.absolute().parent.is_dir()):
        raise click.UsageError(f"--picture {picture} must be a *.png in a folder that exists")
    if target is not None:
        from service.cli.atomic_output import require_fetched_to

        require_fetched_to(target)
    path = Path(source)
    request = _request(asked)
    with _client(url, data_dir, path.exists()) as client:
        dataset = _dataset(client, source, path)
        plan: Plan = client.augment(dataset=dataset, dry_run=True, **request)
        _show_plan(plan, picture)
        if dry_run or target is None:
            return
        # the plan that was shown is the one that is carried out
        request["seed"] = plan.model_dump()["seed"]
        made = _see_through(client.augment(dataset=dataset, **request))
        _tell(made)
        if not made.done:
            raise click.exceptions.Exit(1)
        export = made.export(
            format=asked["wanted"],
            with_dataset=not asked["only_twins"],
            **({"splits": asked["splits"]} if asked["splits"] else {}),
            title=f"{plan.model_dump()['dataset']}, extended by {plan.model_dump()['model']}",
        ).wait()
        export.download(target)
        _tell_set(export.info, target)
    if made.state.value != "succeeded":
        raise click.exceptions.Exit(1)


@contextmanager
def _client(url: str | None, data_dir: Path | None, local_source: bool) -> Iterator[Twinset]:
    """A client of the server that is named; without one, of a stack that runs for as long as the command does."""
    from service.settings import read_settings

    settings = read_settings()
    if data_dir is None and (url is not None or "public_url" in settings.model_fields_set):
        with open_client(url) as client:
            yield client
        return
    if url is not None:
        raise click.UsageError(
            "--data-dir is for work on this machine, and --url for that of a server; give one of them"
        )
    if not local_source and data_dir is None:
        raise click.UsageError(
            "DATASET is no folder or archive here; give one, or name the server that has it with --url"
        )
    from service.cli.local_stack import staged
    from service.client import Twinset

    with ExitStack() as stack:
        folder = data_dir or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="twinset-", ignore_cleanup_errors=True))
        )
        running = stack.enter_context(staged(folder, grace_s=2.0))
        yield stack.enter_context(Twinset(running.url))


def _dataset(client: Twinset, source: str, path: Path) -> DatasetRef:
    if not path.exists():
        return client.dataset(source)
    from service.cli.sources import plain_name

    plain = "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in "_-") else "-"
        for letter in plain_name(path).lower()
    )
    return send(client, plain.strip("_-")[:63] or "dataset", path)


def _request(asked: dict[str, Any]) -> dict[str, Any]:
    """The body of the request, but for the dataset; what options say stands over what the file says."""
    request = dict(asked["more"])
    for name in (
        "model",
        "count",
        "ratio",
        "balance",
        "balance_by",
        "budget",
        "seed",
        "steps",
        "guidance_scale",
        "size",
    ):
        if asked[name] is not None:
            request[name] = asked[name]
    if asked["prompt"]:
        request["prompt"] = asked["prompt"][0] if len(asked["prompt"]) == 1 else list(asked["prompt"])
    if asked["transforms"] is not None:
        names = [name.strip() for name in asked["transforms"].split(",") if name.strip()]
        request["masks"] = {**request.get("masks", {}), "transforms": names}
    accepts = {name: asked[name] for name in ("min_confident_share", "min_class_agreement") if asked[name] is not None}
    if asked["no_near_duplicates"]:
        accepts["no_near_duplicates"] = True
    if accepts:
        request["acceptance"] = {**request.get("acceptance", {}), **accepts}
    request.pop("dry_run", None)
    request.pop("dataset", None)
    return request


def _see_through(augmentation: Augmentation) -> Augmentation:
    """Waits for the set; Ctrl-C cancels it."""
    from service.cli.console import err

    try:
        return augmentation.wait(check=False)
    except (KeyboardInterrupt, SystemExit):
        err.print(f"Set {augmentation.id} is {augmentation.cancel().state.value}.")
        raise


def _show_plan(plan: Plan, picture: Path | None) -> None:
    import base64

    from rich.table import Table

    from service.augmentations.pool import FOUND_SHARE
    from service.cli.console import escape, out

    told = plan.model_dump()
    shares = told["plan"]
    out.print(
        f"[bold]{escape(told['dataset'])}[/] by [bold]{escape(told['model'])}[/]: {shares['count']} twins after "
        f"{shares['items']} real items, seed {told['seed']}",
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
    has = "" if shares["by"] == "pixels" else f": one has a class from {FOUND_SHARE:.1%} of its pixels on"
    out.print(f"[dim]Shares of {shares['by']}{has}. At most {shares['tries']} samples are made.[/]")
    for note in shares["notes"]:
        out.print(f"[yellow]![/] {escape(note)}", soft_wrap=True)
    if picture is not None:
        picture.write_bytes(base64.b64decode(told["picture"]))
        out.print(f"[dim]Picture[/] {escape(str(picture))}", soft_wrap=True)


def _tell(made: Augmentation) -> None:
    from service.cli.console import duration, err, escape, out

    info = made.info.model_dump()
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
            f"  [dim]{'Came to':<16}[/]",
            escape(", ".join(f"{name} {share:.1%}" for name, share in shown)),
            soft_wrap=True,
        )
    if made.state.value != "succeeded":
        reason = f": {escape(info['reason'])}" if info["reason"] else ""
        err.print(f"[bold red]Error:[/] the set ended {made.state.value}{reason}", soft_wrap=True)


def _tell_set(info: Any, target: Path) -> None:
    from rich.text import Text

    from service.cli.console import out

    told = info.model_dump()
    out.print(
        f"  [dim]{'Pairs':<16}[/]",
        f"{told['items']['real']} real, {told['items']['synthetic']} synthetic, as {told['format']}",
    )
    out.print(f"  [dim]{'Dataset':<16}[/]", Text(str(target)), soft_wrap=True)
    out.print(f"  [dim]{'What is in it':<16}[/]", Text(f"{target}/README.md, {target}/manifest.jsonl"), soft_wrap=True)
