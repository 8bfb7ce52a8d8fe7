"""``twinset generate``: requests twins from a server by prompt, classes or masks, and downloads them into a folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from service.cli.numbers import FiniteFloat, SizeInPixels

if TYPE_CHECKING:
    from service.cli.http_client import ApiClient
    from service.cli.twin_folder import TwinFolder


@click.command()
@click.option("--model", required=True, help="NAME, or NAME@VERSION; 'twinset models list' shows them.")
@click.option("--prompt", help="What the images show, in words.")
@click.option("--classes", help="The classes that the images contain: A,B,...")
@click.option(
    "--mask",
    "masks",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    metavar="FILE_OR_FOLDER",
    help="The mask that the images follow, a PNG (square without --fit), or a folder of them. May be repeated; masks "
    "are used in turn.",
)
@click.option(
    "--instances",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    metavar="FILE_OR_FOLDER",
    help="The objects of each mask, so that those that touch stay apart: grey PNGs of 8 or 16 bits with the number of "
    "each pixel's object, 0 for none, as many as masks and in their order.",
)
@click.option(
    "--mask-encoding",
    type=click.Choice(["auto", "index", "binary", "colours"]),
    help="How the masks encode classes.  [default: auto]",
)
@click.option("--count", type=click.IntRange(min=1), help="Number of twins to make.  [default: one for each mask]")
@click.option("--out", "folder", type=click.Path(file_okay=False, path_type=Path), required=True, help="A new folder.")
@click.option("--seed", type=int, help="The same seed and parameters give the same twins.  [default: random]")
@click.option("--steps", type=int, help="Sampling steps.  [default: the model's]")
@click.option("--guidance-scale", type=FiniteFloat(), help="Strength of the guidance.  [default: the model's]")
@click.option(
    "--guidance-target",
    type=click.Choice(["text", "mask", "joint"]),
    help="What the guidance strengthens, if the model has a choice.  [default: the model's]",
)
@click.option("--eta", type=FiniteFloat(), help="Noise added at each step, 0 to 1.  [default: the model's]")
@click.option(
    "--size",
    type=SizeInPixels(),
    help="Side length of image and mask in pixels, or WIDTHxHEIGHT with --fit.  [default: the model's]",
)
@click.option(
    "--fit",
    type=click.Choice(["stretch", "crop", "canvas"]),
    help="What to do with masks and sizes that are not square: stretch the model's square; crop the centre square; or "
    "draw a canvas as large as the mask, by overlapping windows.  [default: as the model was trained]",
)
@click.option("--overlap", type=click.IntRange(min=0), metavar="PX", help="Of a canvas's windows.  [default: half]")
@click.option(
    "--window", type=click.IntRange(min=1), metavar="PX", help="Side of a canvas's windows.  [default: the model's]"
)
@click.option(
    "--window-weights",
    type=click.Choice(["smooth", "uniform"]),
    help="How overlapping windows are averaged.  [default: smooth]",
)
@click.option(
    "--priority",
    type=click.Choice(["normal", "interactive"]),
    help="An interactive job must be small and goes before normal ones.  [default: normal]",
)
@click.option(
    "--layout",
    type=click.Choice(["objects", "shards"]),
    help="Storage on the server: an object per file, or a tar per chunk.  [default: by the count]",
)
@click.option("--name", help="A name for the job.")
@click.option("--callback-url", help="An https:// address to which a signed webhook is sent when the job ends.")
@click.option("--url", help="The server.  [default: TWINSET_PUBLIC_URL, else http://127.0.0.1:8000]")
def generate(
    folder: Path, url: str | None, masks: tuple[Path, ...], instances: tuple[Path, ...], **options: Any
) -> None:
    """Make twins on a server and download them into a folder.

    Give --prompt, --classes or --mask, or --prompt and --mask together, as the model allows. Writes images/, masks/,
    manifest.jsonl, the model's card.json and contact_sheet.png to --out. Ctrl-C offers to cancel the job.

    Start a server on this machine with 'twinset up'. The API key of a remote server is read from TWINSET_API_KEY.
    """
    request = {key: value for key, value in options.items() if value is not None}
    windows = {"overlap": "overlap_px", "window": "window_px", "window_weights": "weights"}
    if canvas := {windows[name]: request.pop(name) for name in list(request) if name in windows}:
        request["canvas"] = canvas
    _check_usage(request, masks)
    if "classes" in request:
        request["classes"] = [word.strip() for word in request["classes"].split(",") if word.strip()]
    require_new_folder(folder)

    from model_store.card import ModelCard
    from service.cli.http_client import ApiClient, ProblemAnswer
    from service.cli.mask_uploads import mask_files, upload_masks, with_file_names
    from service.cli.twin_folder import write_twin_folder
    from service.settings import read_settings

    files, maps = mask_files(masks), mask_files(instances, "--instances")
    if maps and len(maps) != len(files):
        raise click.UsageError(f"--instances names {len(maps)} files and --mask {len(files)}; give one for each mask")
    settings = read_settings()
    # The key comes only from the environment: an argument would be visible to all users in the list of processes.
    key = settings.api_key.get_secret_value() if settings.api_key else None
    with ApiClient(url or settings.public_url, api_key=key) as client:
        card = ModelCard.model_validate(client.model(request["model"])["card"])
        if files:
            request["mask"] = upload_masks(client, files)
        if maps:
            request["instances"] = upload_masks(client, maps)
        try:
            accepted = client.submit(request)
        except ProblemAnswer as problem:
            raise with_file_names(problem, mask=files, instances=maps) from None
        job = _wait_or_cancel(client, accepted)
        if job["state"] == "cancelled":
            raise click.Abort
        report = write_twin_folder(client, job, card, folder) if job["done"] else None
    print_result(job, report)


def _check_usage(request: dict[str, Any], masks: tuple[Path, ...]) -> None:
    """Raises a usage error for combinations of options that no model accepts."""
    if not masks and not request.keys() & {"prompt", "classes"}:
        raise click.UsageError("give --prompt, --classes or --mask; 'twinset models show' says what a model takes")
    if "classes" in request and (masks or "prompt" in request):
        raise click.UsageError("--classes cannot be combined with --prompt or --mask")
    if not masks and "count" not in request:
        raise click.UsageError("give --count; it may be left out only with --mask, which then makes one twin per mask")


def require_new_folder(folder: Path) -> None:
    """Raises a usage error unless ``folder`` is new or empty, so that twins of two jobs do not mix, and can be made."""
    if folder.is_dir() and any(folder.iterdir()):
        raise click.UsageError(f"--out {folder} is not empty; name a new folder")
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        why = "you may not write there" if there.is_dir() else f"{there} is a file"
        raise click.UsageError(f"--out {folder} cannot be made: {why}; name a folder elsewhere")


def _wait_or_cancel(client: ApiClient, job: dict[str, Any]) -> dict[str, Any]:
    """Follows the job until it ends. Ctrl-C asks whether to cancel it; without a terminal it cancels at once."""
    from service.cli.console import err
    from service.cli.progress import follow_job

    try:
        return follow_job(client, job["id"])
    except (KeyboardInterrupt, SystemExit):
        if not _wants_cancel(job["id"]):
            err.print(f"The job continues. Its twins will be at {client.url}/jobs/{job['id']}/archive", soft_wrap=True)
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
        return True  # Ctrl-C again means yes


def print_result(job: dict[str, Any], report: TwinFolder | None, **places: str) -> None:
    """Prints where everything is, ``places`` last. Exits with code 1 if the job did not make all its twins."""
    from rich.text import Text

    from service.cli.console import duration, err, out

    if report is not None:
        seconds = f" in {duration(job['seconds'])}" if job["seconds"] is not None else ""
        noun = f"{'twin' if report.masks else 'image'}{'' if report.twins == 1 else 's'}"
        out.print(f"[green]✓[/] [bold]{report.twins}[/] {noun}{seconds}")
        kinds = ["images", *(["masks"] if report.masks else []), *(["instances"] if report.instances else [])]
        rows = {"Twins": f"{report.path}/{', '.join(kinds)}, manifest.jsonl"}
        if report.contact_sheet is not None:
            rows = {"Contact sheet": str(report.contact_sheet), **rows}
        for label, text in {**rows, **places}.items():
            out.print(f"  [dim]{label:<16}[/]", Text(text), soft_wrap=True)
    if job["state"] != "succeeded":
        reason = f": {job['reason']}" if job["reason"] else ""
        what = f"the job ended {job['state']}, {job['done']} of {job['total']} made{reason}"
        err.print("[bold red]Error:[/]", Text(what), soft_wrap=True)
        raise click.exceptions.Exit(1)
