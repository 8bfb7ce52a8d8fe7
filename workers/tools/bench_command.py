"""``twinset bench``: measures how fast a model is on this machine."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from service.cli.numbers import FiniteFloat

if TYPE_CHECKING:
    from service.settings import Settings
    from service.store.base import ObjectStore
    from service.store.folder import FolderStore
    from workers.models.loaded_model import LoadedModel
    from workers.tools.bench import Load


@click.command()
@click.argument("model")
@click.option("--samples", type=click.IntRange(1), default=32, show_default=True, help="Twins to make at once.")
@click.option("--steps", type=click.IntRange(1), default=10, show_default=True, help="Sampling steps per twin.")
@click.option(
    "--guidance", type=FiniteFloat(min=0), help="Guidance scale; 1 needs half the rows.  [default: the model's]"
)
@click.option("--size", type=click.IntRange(1), help="One of the model's sizes, in pixels.  [default: the model's]")
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Rounds to run; the results are their medians.",
)
@click.option("--rows", type=click.IntRange(2), help="Rows per batch.  [default: TWINSET_BATCH_SHAPE, else measured]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def bench(
    model: str,
    samples: int,
    steps: int,
    guidance: float | None,
    size: int | None,
    rounds: int,
    rows: int | None,
    as_json: bool,
) -> None:
    """Measure how fast MODEL makes twins on this machine.

    MODEL is a name or name@version (bundled, or registered in the store of TWINSET_STORE_URL), or a model folder. The
    device and number format are those of the settings ('twinset settings'). The twins are not kept.
    """
    from service.cli.console import err, out
    from service.errors import TwinsetError
    from service.local.stack import require_worker_parts
    from service.settings import read_settings
    from workers.runtime.malloc import keep_memory

    try:
        require_worker_parts()
        keep_memory()
        with tempfile.TemporaryDirectory(prefix="twinset-bench-") as folder:
            settings = read_settings()
            settings = settings.model_copy(
                update={"batch_shape": rows or settings.batch_shape, "model_cache_dir": Path(folder) / "models"}
            )
            figures = _measure(model, settings, Path(folder), samples, steps, guidance, size, rounds)
    except TwinsetError as error:
        raise click.ClickException(error.detail) from None
    except (RuntimeError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(json.dumps(figures, indent=2))
        return
    for line in _report_lines(figures):
        out.print(line, soft_wrap=True)
    if figures["rows_held"] < 0.9:
        err.print(f"[dim]forwards were {100 * figures['rows_held']:.0f} % full; more --samples fill them[/]")


def _measure(
    model: str,
    settings: Settings,
    scratch: Path,
    samples: int,
    steps: int,
    guidance: float | None,
    size: int | None,
    rounds: int,
) -> dict[str, Any]:
    from tqdm import tqdm

    from service.store.folder import FolderStore
    from workers.engine import Engine
    from workers.evaluation.sampling import check_within
    from workers.generation.warmup import any_request
    from workers.generation.worker import available_cores
    from workers.models.cache import ModelCache
    from workers.tools.bench import Bench, Load, measure

    threads = settings.cpu_threads or available_cores()
    scratch_store = FolderStore(scratch / "store", link_secret=b"0" * 16, public_url="http://127.0.0.1")
    name, store = _find(model, settings, scratch_store)
    models, engine = ModelCache(settings, store, cpu_threads=threads), Engine(cpu_threads=threads)
    try:
        with models.use(name) as loaded:
            card = loaded.card
            if size is not None and size not in card.sizes_px:
                raise ValueError(f"{card.id} makes sizes {list(card.sizes_px)}, not {size}")
            check_within(card, "steps", steps, card.limits.steps_min, card.limits.steps_max)
            check_within(card, "guidance", guidance, card.limits.guidance_min, card.limits.guidance_max)
            load = Load(
                samples=samples,
                steps=steps,
                guidance_scale=card.defaults.guidance_scale if guidance is None else guidance,
                eta=card.defaults.eta,
                size_px=size or card.default_size_px,
            )
            by_rows = _by_rows(loaded, threads)
            bench = Bench(loaded, engine, scratch_store, any_request(card), threads)
            try:
                with tqdm(total=rounds, desc="rounds", dynamic_ncols=True) as bar:
                    figures = measure(bench, load, rounds, bar.update)
            finally:
                bench.close()
            return _about(loaded, load, by_rows, bench.flops_per_s) | figures
    finally:
        engine.stop()


def _find(model: str, settings: Settings, scratch_store: FolderStore) -> tuple[str, ObjectStore]:
    """The model's ``name@version`` and its store; a model folder is registered in the scratch store first."""
    from service.registry.catalogue import Catalogue
    from service.registry.references import owner_named_in
    from service.registry.register import register_folder
    from service.store.opening import open_store

    if (Path(model) / "card.json").is_file():
        card, _ = register_folder(Path(model), scratch_store, tenant=None)
        return card.id, scratch_store
    store = open_store(settings)
    return Catalogue(store).find(model, tenant=owner_named_in(model)).key, store


def _by_rows(loaded: LoadedModel, threads: int) -> dict[int, float]:
    """Milliseconds per row at growing numbers of rows, on the engine's number of threads."""
    from workers.engine.shape import measure_rows
    from workers.engine.threads import run_in_own_thread

    return {
        rows: 1e3 * seconds for rows, seconds in run_in_own_thread(threads, lambda: measure_rows(loaded.system)).items()
    }


def _about(loaded: LoadedModel, load: Load, by_rows: dict[int, float], flops_per_s: float) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "model": loaded.card.id,
        "device": loaded.device_name,
        "dtype": loaded.dtype_name,
        "build": loaded.build,
        "batch_shape": list(loaded.batch_shape),
        "shapes": loaded.engine_model.shapes,
        "load": asdict(load),
        "ms_per_row": by_rows,
        "weights_bytes": loaded.memory_bytes,
        "gflop_per_row": loaded.flops_per_row / 1e9,
        "matmul_tflops": flops_per_s / 1e12,
    }


def _report_lines(found: dict[str, Any]) -> list[str]:
    """The report as lines of rich markup."""
    load, rows = found["load"], found["batch_shape"][0]
    costs = "  ".join(
        f"{n}: [bold]{ms:.3g}[/]" if n == rows else f"{n}: {ms:.3g}" for n, ms in found["ms_per_row"].items()
    )
    workload = (
        f"{load['samples']} twins, {load['steps']} steps, guidance {load['guidance_scale']:g}, {load['size_px']} px"
    )
    return [
        f"[bold]{found['model']}[/] on {found['device']}, {found['dtype']}, {found['build']['forward']}",
        f"  batch            {rows} rows ({found['shapes']} shape); ms per row by batch size: {costs}",
        f"  forward          {found['forward_ms']:.3g} ms, {100 * found['rows_held']:.0f} % of its rows held samples",
        f"  utilisation      {100 * found['utilisation']:.0f} % of this device's {found['matmul_tflops']:.3g} TFLOP/s "
        f"in matrix products ({found['gflop_per_row']:.3g} GFLOP per row)",
        f"  outside network  {100 * found['outside_network']:.1f} % of the denoising's time",
        f"  denoised         {found['denoised_per_s']:.3g} twins/s ({workload})",
        f"  stored           {found['stored_per_s']:.3g} twins/s, {found['stored_over_denoised']:.2f} of that",
        f"  one twin alone   {found['one_twin_s']:.2f} s, from noise to files",
    ]
