"""``twinset evaluate cosimgen``: measures a model folder, or a bundled model, on a dataset."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from tqdm import tqdm

from model_store import bundled_folder

_DATA = click.Path(exists=True, file_okay=False, path_type=Path)
_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command("cosimgen")
@click.option("--model", required=True, help="A model folder, or the name (or name@version) of a bundled model.")
@click.option("--data", required=True, type=_DATA, help="The dataset; its test split is asked for.")
@click.option("--count", default=200, show_default=True, type=click.IntRange(1), help="Twins for each way of asking.")
@click.option("--by", type=click.Choice(["classes", "prompts", "both"]), default="both", show_default=True, help="How the model is asked.")
@click.option("--size", type=click.IntRange(1), help="One of the card's sizes [default: the card's].")
@click.option("--steps", type=click.IntRange(1), help="Sampling steps [default: the card's].")
@click.option("--guidance", type=float, help="Guidance scale [default: the card's].")
@click.option("--eta", type=click.FloatRange(0, 1), help="DDIM's eta [default: the card's].")
@click.option("--seed", default=0, show_default=True, help="Of the class sets and of the twins.")
@click.option("--out", type=_FOLDER, default=Path("evaluation"), show_default=True, help="Where the figures and pictures go.")
@click.option("--segmenters", type=_FOLDER, help="Where trained segmenters are kept [default: OUT/segmenters].")
@click.option("--segmenter-epochs", type=click.IntRange(1), help="Shorter or longer segmenter training [default: by size].")
@click.option(
    "--features",
    default="best",
    show_default=True,
    help="Feature network of the Frechet distance; 'best' takes what is installed, 'none' leaves it out.",
)
@click.option("--no-up/--has-up", "no_up", default=None, help="Whether scenes may be turned and flipped [default: dataset.json's].")
@click.option("--record", is_flag=True, help="Also write the figures on the card of the model folder, as its `measured`.")
@click.option("--device", default="auto", show_default=True)
@click.option("--dtype", default="auto", show_default=True)
def cosimgen(
    model: str,
    data: Path,
    count: int,
    by: str,
    size: int | None,
    steps: int | None,
    guidance: float | None,
    eta: float | None,
    seed: int,
    out: Path,
    segmenters: Path | None,
    segmenter_epochs: int | None,
    features: str,
    no_up: bool | None,
    record: bool,
    device: str,
    dtype: str,
) -> None:
    """Measure a CoSimGen model: what was asked against what was made, and whether image and mask agree.

    A small segmenter is trained on the real train split first (minutes on a CPU) and kept for the next time.
    """
    from model_store.card import CardInvalid
    from model_store.features import FeaturesUnavailable, best_available, open_features
    from model_store.system import WeightsInvalid, load_system
    from workers.evaluation.evaluate import Plan, default_segmenters, evaluate, sampling_for
    from workers.evaluation.report import table, write_figures, write_on_card, write_sheet
    from workers.training.data import DatasetInvalid, SegmentationFolder

    progress = Bars()
    try:
        system = load_system(find_model(model), device=device, dtype=dtype)
        card = system.card
        size_px = size or card.default_size_px
        if size_px not in card.sizes_px:
            raise ValueError(f"{card.id} makes sizes {list(card.sizes_px)}, not {size_px}")
        settings = default_segmenters(card, size_px)
        if segmenter_epochs:
            settings = {px: each.model_copy(update={"epochs": segmenter_epochs}) for px, each in settings.items()}
        plan = Plan(
            count=count,
            ways=("classes", "prompts") if by == "both" else (by,),  # type: ignore[arg-type]
            sampling=sampling_for(card, steps=steps, guidance_scale=guidance, eta=eta),
            size_px=size_px,
            seed=seed,
            segmenters=settings,
            features=None if features == "none" else open_features(best_available() if features == "best" else features),
        )
        figures, made = evaluate(
            system,
            SegmentationFolder.open(data),
            plan,
            segmenters or out / "segmenters",
            has_up=None if no_up is None else not no_up,
            progress=progress,
        )
    except (CardInvalid, WeightsInvalid, DatasetInvalid, FeaturesUnavailable, ValueError) as error:
        raise click.ClickException(str(error)) from None
    finally:
        progress.close()
    written = [write_figures(figures, out)]
    if record:
        written.append(write_on_card(figures, find_model(model)))
    written += [write_sheet(system.card, way, queries, twins, out) for way, (queries, twins) in made.items()]
    console = Console()
    console.print(table(figures))
    console.print("wrote " + ", ".join(map(str, written)), soft_wrap=True)


def find_model(model: str) -> Path:
    """A folder with a card.json, or that of a bundled ``name`` (its newest version) or ``name@version``. Raises ValueError."""
    folder = Path(model)
    if (folder / "card.json").is_file():
        return folder
    name, _, version = model.partition("@")
    versions = [path.parent for path in bundled_folder().glob(f"{name}/*/card.json")] if name.replace("-", "").isalnum() else []
    if version:
        versions = [path for path in versions if path.name == version]
    if not versions:
        known = sorted({path.parents[1].name for path in bundled_folder().glob("*/*/card.json")})
        raise ValueError(f"{model!r} is neither a folder with a card.json nor a bundled model; bundled: {', '.join(known) or 'none'}")
    return max(versions, key=lambda path: tuple(int(part) for part in path.name.split(".")))


class Bars:
    """One progress bar after another, each with its seconds left, from (what, done, total)."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None
        self._what = ""

    def __call__(self, what: str, done: int, total: int) -> None:
        if self._bar is None or what != self._what:
            self.close()
            self._bar, self._what = tqdm(total=total, desc=what, dynamic_ncols=True), what
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Ends the bar that is shown."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
