"""``twinset generate``: words, classes or masks in, a folder of twins out, through the API of a server."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from service.cli.numbers import FiniteFloat

if TYPE_CHECKING:
    from service.cli.http_client import ApiClient
    from service.cli.twin_folder import TwinFolder


@click.command()
@click.option("--model", required=True, help="NAME, or NAME@VERSION; 'twinset models list' shows them.")
@click.option("--prompt", help="What the pictures show, in words.")
@click.option("--classes", help="The classes that the pictures hold, by name: A,B,...")
@click.option(
    "--mask",
    "masks",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    metavar="FILE_OR_FOLDER",
    help="The mask that the pictures follow, a square PNG; or a folder of them. May be repeated: they take turns.",
)
@click.option(
    "--mask-encoding",
    type=click.Choice(["auto", "index", "binary", "colours"]),
    help="How masks tell classes.  [default: auto]",
)
@click.option("--count", type=click.IntRange(min=1), help="How many twins to make.  [default: one for each mask]")
@click.option("--out", "folder", type=click.Path(file_okay=False, path_type=Path), required=True, help="A new folder.")
@click.option("--seed", type=int, help="Same seed and parameters, same twins. Drawn if not given.")
@click.option("--steps", type=int, help="Sampling steps.  [default: the model's]")
@click.option("--guidance-scale", type=FiniteFloat(), help="How strongly the request steers.  [default: the model's]")
@click.option(
    "--guidance-target",
    type=click.Choice(["text", "mask", "joint"]),
    help="What guidance strengthens, where the model has a choice.  [default: the model's]",
)
@click.option("--eta", type=FiniteFloat(), help="Noise added at each step, 0 to 1.  [default: the model's]")
@click.option("--size", type=int, help="Side of image and mask in pixels.  [default: the model's]")
@click.option(
    "--priority",
    type=click.Choice(["normal", "interactive"]),
    help="interactive has a small job made before normal ones.  [default: normal]",
)
@click.option(
    "--layout",
    type=click.Choice(["objects", "shards"]),
    help="How the server stores the twins: one by one, or a chunk in a tar.  [default: the server's choice, by the count]",
)
@click.option("--name", help="Your own words for the job.")
@click.option("--callback-url", help="An https:// address that is told, by a signed POST, how the job has ended.")
@click.option("--url", help="The server.  [default: TWINSET_PUBLIC_URL, else http://127.0.0.1:8000]")
def generate(folder: Path, url: str | None, masks: tuple[Path, ...], **asked: Any) -> None:
    """Have a server make twins, and fetch them into a folder.

    By --prompt, --classes or --mask, or by --prompt and --mask together, as the model takes them. Writes images/,
    masks/, manifest.jsonl, the model's card.json and contact_sheet.png into the folder of --out. Ctrl-C offers to
    cancel the job. Start a server on this machine with: twinset up. The API key of another is read from
    TWINSET_API_KEY.
    """
    request = {key: value for key, value in asked.items() if value is not None}
    _check_usage(request, masks)
    if "classes" in request:
        request["classes"] = [word.strip() for word in request["classes"].split(",") if word.strip()]
    require_new_folder(folder)

    from model_store.card import ModelCard
    from service.cli.http_client import ApiClient, ProblemAnswer
    from service.cli.mask_uploads import mask_files, naming_files, send_masks
    from service.cli.twin_folder import collect
    from service.settings import read_settings

    files = mask_files(masks)
    settings = read_settings()
    # The key comes from the environment alone: an argument would stand in the list of processes, for all to see.
    key = settings.api_key.get_secret_value() if settings.api_key else None
    with ApiClient(url or settings.public_url, api_key=key) as client:
        card = ModelCard.model_validate(client.model(request["model"])["card"])
        if files:
            request["mask"] = send_masks(client, files)
        try:
            accepted = client.submit(request)
        except ProblemAnswer as problem:
            raise naming_files(problem, files) from None
        job = _see_through(client, accepted)
        if job["state"] == "cancelled":
            raise click.Abort
        report = collect(client, job, card, folder) if job["done"] else None
    tell(job, report)


def _check_usage(request: dict[str, Any], masks: tuple[Path, ...]) -> None:
    """Raises a usage error for what no model takes."""
    if not masks and not request.keys() & {"prompt", "classes"}:
        raise click.UsageError("give --prompt, --classes or --mask; 'twinset models show' says what a model takes")
    if "classes" in request and (masks or "prompt" in request):
        raise click.UsageError("--classes goes alone; leave out --prompt and --mask, or it")
    if not masks and "count" not in request:
        raise click.UsageError("give --count; only masks do without, and then make one twin each")


def require_new_folder(folder: Path) -> None:
    """Raises a usage error unless ``folder`` is new or empty: twins of two jobs must not mix."""
    if folder.exists() and any(folder.iterdir()):
        raise click.UsageError(f"--out {folder} is not empty; name a new folder")


def _see_through(client: ApiClient, job: dict[str, Any]) -> dict[str, Any]:
    """Follows the job to its end; Ctrl-C asks what is to become of it (and cancels, where nobody can be asked)."""
    from service.cli.console import err
    from service.cli.progress import follow

    try:
        return follow(client, job["id"])
    except (KeyboardInterrupt, SystemExit):
        if not _wants_cancel(job["id"]):
            err.print(f"It goes on. Its twins will be at {client.url}/jobs/{job['id']}/archive", soft_wrap=True)
            raise
        state = client.cancel(job["id"])["state"]
        err.print(f"Job {job['id']} is {state}.")
        raise


def _wants_cancel(job: str) -> bool:
    if not sys.stdin.isatty():
        return True
    try:
        return click.confirm(f"Cancel job {job}?", default=True, err=True)
    except click.Abort:
        return True  # Ctrl-C again: whoever is in a hurry wants it gone


def tell(job: dict[str, Any], report: TwinFolder | None, **places: str) -> None:
    """Says where everything is, ``places`` last; a job that did not make all its twins ends the command with code 1."""
    from rich.text import Text

    from service.cli.console import duration, err, out

    if report is not None:
        seconds = f" in {duration(job['seconds'])}" if job["seconds"] is not None else ""
        out.print(
            f"[green]✓[/] [bold]{report.twins}[/] {'twin' if report.masks else 'image'}{'' if report.twins == 1 else 's'}{seconds}"
        )
        rows = {"Twins": f"{report.path}/images, {'masks, ' if report.masks else ''}manifest.jsonl"}
        if report.contact_sheet is not None:
            rows = {"Contact sheet": str(report.contact_sheet), **rows}
        for label, text in {**rows, **places}.items():
            out.print(f"  [dim]{label:<16}[/]", Text(text), soft_wrap=True)
    if job["state"] != "succeeded":
        reason = f": {job['reason']}" if job["reason"] else ""
        what = f"the job ended {job['state']}, {job['done']} of {job['total']} made{reason}"
        err.print("[bold red]Error:[/]", Text(what), soft_wrap=True)
        raise click.exceptions.Exit(1)
