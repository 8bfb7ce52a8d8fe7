"""``twinset augment``: extends a dataset with twins and writes the result in a training format."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from service.cli.export import WRITTEN_FORMATS, check_dropped, class_options, named_shares, shares_option
from service.cli.numbers import FiniteFloat, SizeInPixels
from service.cli.object_rules import rules, with_rules
from service.cli.sources import exit_if_left_out, split_map_option
from service.cli.stored_datasets import open_client, print_import_faults, upload_and_wait

if TYPE_CHECKING:
    from service.client import Augmentation, DatasetRef, PlanInfo, Twinset


def _balance(ctx: click.Context, parameter: click.Parameter, text: str | None) -> str | dict[str, float] | None:
    if text is None or text in ("even", "inverse"):
        return text
    return named_shares(ctx, parameter, text, "is not even, inverse, or shares like water=0.2,road=0.1")


def _object(ctx: click.Context, parameter: click.Parameter, path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    from service.kit.documents import parse_json

    try:
        given = parse_json(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"{path} cannot be read: {error}", ctx, parameter) from None
    if not isinstance(given, dict):
        raise click.BadParameter(f"{path} must hold a JSON object", ctx, parameter)
    return given


def _class_map(ctx: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> dict[str, str | None]:
    names: dict[str, str | None] = {}
    for text in texts:
        ours, equals, theirs = (part.strip() for part in text.rpartition("="))
        if not equals or not ours:
            raise click.BadParameter(f"{text!r} is not of the form A=B", ctx, parameter)
        names[ours] = theirs or None
    return names


@click.command()
@click.argument("source", metavar="DATASET")
@click.option("--model", required=True, help="NAME, or NAME@VERSION; 'twinset models list' shows them.")
@click.option("--out", "target", type=click.Path(path_type=Path), help="A new folder for the result.")
@click.option("--count", type=click.IntRange(min=1), help="Number of twins to add; or give --ratio.")
@click.option("--ratio", type=FiniteFloat(), help="Twins to add for each real item: 3 adds three times as many.")
@click.option(
    "--balance",
    callback=_balance,
    metavar="even|inverse|A=0.3,B=0.2",
    help="Target class shares.  [default: those of the dataset]",
)
@click.option(
    "--balance-by",
    type=click.Choice(["pixels", "images"]),
    help="Shares of pixels, or of images with the class.  [default: pixels]",
)
@click.option(
    "--objects",
    callback=rules,
    metavar="A=5,B=2..8,C=0",
    help="Number of objects of a class in each mask: one, or the least and the most; 0 for none.",
)
@click.option(
    "--object-size",
    callback=rules,
    metavar="A=1.5,B=10..24",
    help="Size of a class's objects: a factor of length, or the least and the greatest side in pixels of the twin.",
)
@click.option(
    "--class-map",
    multiple=True,
    callback=_class_map,
    metavar="A=B",
    help="The model's class B for the dataset's class A; A= gives its pixels to the classes around them. May be "
    "repeated.  [default: by name]",
)
@click.option(
    "--transforms", metavar="flip,scale,...", help="Transforms of the real masks.  [default: a standard selection]"
)
@click.option(
    "--prompt", multiple=True, help="Prompt template; {classes}, {article} and {caption} are replaced. May be repeated."
)
@click.option(
    "--min-confident-share", type=FiniteFloat(), help="Minimum share of confident pixels, for models that draw masks."
)
@click.option(
    "--min-class-agreement",
    type=FiniteFloat(),
    help="Minimum share of the requested classes that the mask must contain.",
)
@click.option("--no-near-duplicates", is_flag=True, help="Reject twins that look like an earlier one.")
@click.option("--budget", type=FiniteFloat(), help="Maximum samples to make per twin.  [default: 2]")
@click.option("--seed", type=int, help="Same seed and parameters give the same set.  [default: random]")
@click.option("--steps", type=int, help="Sampling steps.  [default: the model's]")
@click.option("--guidance-scale", type=FiniteFloat(), help="Strength of the guidance.  [default: the model's]")
@click.option(
    "--fit",
    type=click.Choice(["stretch", "crop", "canvas"]),
    help="What of an item a twin shows: all of it, drawn as a square and stretched; a square of it; or all of it, by "
    "overlapping windows.  [default: as the model was trained]",
)
@click.option(
    "--size",
    type=SizeInPixels(),
    help="Side length of image and mask in pixels, or WIDTHxHEIGHT.  [default: that of the real items]",
)
@click.option(
    "--request",
    "more",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    callback=_object,
    metavar="FILE.json",
    help="Further fields of POST /augmentations, as JSON.",
)
@click.option(
    "--format",
    "wanted",
    default="folders",
    show_default=True,
    type=click.Choice(WRITTEN_FORMATS),
    help="Format of the result.",
)
@class_options
@shares_option
@split_map_option
@click.option("--only-twins", is_flag=True, help="Leave out the real items.")
@click.option("--dry-run", is_flag=True, help="Show the plan and stop.")
@click.option(
    "--chart",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.png",
    help="Also draw the plan as a chart.",
)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Without a server: the data folder, with your own models.  [default: a temporary folder]",
)
@click.option("--url", help="The server.  [default: TWINSET_PUBLIC_URL, else everything runs on this machine]")
def augment(
    source: str,
    target: Path | None,
    dry_run: bool,
    chart: Path | None,
    data_dir: Path | None,
    url: str | None,
    **options: Any,
) -> None:
    """Extend a dataset with twins, by a plan.

    DATASET is a folder, an archive, or the name of a dataset on the server. The plan is shown first, with the planned
    and the target share of each class. Then twins are made in rounds and checked until there are enough. The result is
    written to --out: real items and twins, with a manifest and a dataset card. Whatever had to be left out is named,
    and the exit code is then 1. Without a server, the command starts broker, API and workers on this machine and stops
    them at the end.
    """
    if target is None and not dry_run:
        raise click.UsageError("give --out, a new folder for the result; or --dry-run, to see only the plan")
    if chart is not None and (chart.suffix.lower() != ".png" or not chart.absolute().parent.is_dir()):
        raise click.UsageError(f"--chart {chart} must be a *.png in a folder that exists")
    if target is not None:
        from service.cli.atomic_output import require_download_folder

        require_download_folder(target)
    from service.cli.augment_export import export_options
    from service.cli.augment_output import print_dataset, print_summary, show_plan

    path = Path(source)
    check_dropped(options["keep"], options["dropped"])
    _check_splits(options, local=path.exists())
    request = _request(options)
    with _client(url, data_dir, path.exists()) as client:
        dataset, left_out = _dataset(client, source, path, options["split_map"])
        plan: PlanInfo = client.augment(dataset=dataset, dry_run=True, **request)
        show_plan(plan, chart)
        model = str(plan.model_dump()["model"])
        changes = export_options(client, dataset, model, request.get("class_map") or {}, options)
        if dry_run or target is None:
            exit_if_left_out(left_out)
            return
        # the same seed, so that the plan that was shown is executed
        request["seed"] = plan.model_dump()["seed"]
        augmentation = _wait_or_cancel(client.augment(dataset=dataset, **request))
        print_summary(augmentation)
        if not augmentation.done:
            raise click.exceptions.Exit(1)
        export = augmentation.export(
            format=options["wanted"],
            with_dataset=not options["only_twins"],
            **changes,
            title=f"{plan.model_dump()['dataset']}, extended by {model}",
        ).wait()
        export.download(target)
        left_out += print_dataset(export.info, target)
    if augmentation.state.value != "succeeded":
        raise click.exceptions.Exit(1)
    exit_if_left_out(left_out)


@contextmanager
def _client(url: str | None, data_dir: Path | None, local_source: bool) -> Iterator[Twinset]:
    """A client of the given server, or else of an embedded stack that runs as long as the command."""
    from service.settings import read_settings

    settings = read_settings()
    if data_dir is None and (url is not None or "public_url" in settings.model_fields_set):
        with open_client(url) as client:
            yield client
        return
    if url is not None:
        raise click.UsageError("--data-dir is for running on this machine, --url for a server; give only one of them")
    if not local_source and data_dir is None:
        raise click.UsageError(
            "DATASET is not a folder or archive on this machine; give one, or name its server with --url"
        )
    from service.cli.local_stack import running_stack
    from service.client import Twinset

    with ExitStack() as stack:
        folder = data_dir or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="twinset-", ignore_cleanup_errors=True))
        )
        running = stack.enter_context(running_stack(folder, grace_s=2.0))
        yield stack.enter_context(Twinset(running.url))


def _check_splits(options: dict[str, Any], *, local: bool) -> None:
    """Raises a usage error for shares that cannot be drawn, before twins are made that could not be exported."""
    from pydantic import ValidationError

    from service.datasets.writing.options import ExportOptions

    if options["split_map"] and not local:
        raise click.UsageError(
            "--split-map is for a folder or an archive; a dataset on the server keeps the splits that it was pushed "
            "with: twinset datasets push --split-map"
        )
    try:
        ExportOptions(format=options["wanted"], splits=options["splits"])
    except ValidationError as error:
        faults = "; ".join(str(fault["msg"]).removeprefix("Value error, ") for fault in error.errors())
        raise click.UsageError(f"--split: {faults}") from None


def _dataset(client: Twinset, source: str, path: Path, split_map: dict[str, str]) -> tuple[DatasetRef, int]:
    """The dataset, uploaded if it is on this machine, and how many entries the upload left out."""
    if not path.exists():
        return client.dataset(source), 0
    from service.cli.sources import plain_name

    plain = "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in "_-") else "-"
        for letter in plain_name(path).lower()
    )
    dataset = upload_and_wait(client, plain.strip("_-")[:63] or "dataset", path, split_map=split_map)
    return dataset, print_import_faults(dataset)


def _request(options: dict[str, Any]) -> dict[str, Any]:
    """The body of the request, without the dataset; options override the fields of --request."""
    request = dict(options["more"])
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
        "fit",
        "size",
    ):
        if options[name] is not None:
            request[name] = options[name]
    request = with_rules(request, options["objects"], options["object_size"])
    if options["prompt"]:
        request["prompt"] = options["prompt"][0] if len(options["prompt"]) == 1 else list(options["prompt"])
    if options["class_map"]:
        request["class_map"] = {**(request.get("class_map") or {}), **options["class_map"]}
    if options["transforms"] is not None:
        names = [name.strip() for name in options["transforms"].split(",") if name.strip()]
        request["masks"] = {**request.get("masks", {}), "transforms": names}
    accepts = {
        name: options[name] for name in ("min_confident_share", "min_class_agreement") if options[name] is not None
    }
    if options["no_near_duplicates"]:
        accepts["no_near_duplicates"] = True
    if accepts:
        request["acceptance"] = {**request.get("acceptance", {}), **accepts}
    request.pop("dry_run", None)
    request.pop("dataset", None)
    return request


def _wait_or_cancel(augmentation: Augmentation) -> Augmentation:
    """Waits for the set; Ctrl-C cancels it."""
    from service.cli.console import err

    try:
        return augmentation.wait(check=False)
    except (KeyboardInterrupt, SystemExit):
        err.print(f"Set {augmentation.id} is {augmentation.cancel().state.value}.")
        raise
