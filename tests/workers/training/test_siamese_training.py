"""Siamese-Diffusion's training: it learns, resumes to the same losses, keeps frozen weights, and exports."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model_store.card import load_card
from model_store.latent.autoencoder import build_autoencoder, stable_diffusion_autoencoder
from model_store.latent.base import LatentBase
from model_store.latent.denoiser import build_unet, on_meta, parameters_of, stable_diffusion_denoiser
from model_store.loading import load_system
from model_store.siamese_diffusion.hint import mask_hint
from model_store.siamese_diffusion.network import SiameseNetwork
from model_store.siamese_diffusion.system import SiameseDiffusionSystem, build_hint
from tests.model_store.latent.tiny import LetterTokens
from tests.workers.training.scenes import (
    accelerator,
    logged,
    tiny_base,
    write_scenes,
)
from tests.workers.training.siamese_runs import (
    FROZEN,
    ITERATIONS,
    OFF,
    trainer,
)
from workers.data.listings import DatasetInvalid
from workers.data.pairs import whole_pairs
from workers.data.training_set import TrainingSet
from workers.training.card_parts import ExportImpossible
from workers.training.controlled import class_palette
from workers.training.latent_base import STABLE_DIFFUSION_CONVENTION
from workers.training.latent_export import export_siamese
from workers.training.loop import iteration_generator
from workers.training.siamese import SiameseTrainer, preset_siamese

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    return TrainingSet.open(write_scenes(tmp_path_factory.mktemp("data") / "scenes", 6))


@pytest.fixture(scope="module")
def finished(scenes: TrainingSet, tmp_path_factory: pytest.TempPathFactory) -> SiameseTrainer:
    run = trainer(scenes, tmp_path_factory.mktemp("run") / "whole")
    run.run(checkpoint_every=30, sample_every=ITERATIONS, log_every=5)
    return run


def test_a_few_dozen_steps_lower_the_losses_and_samples_are_drawn(finished: SiameseTrainer) -> None:
    for name in ("mask", "image"):
        losses = logged(finished.out, name)
        assert sum(losses[-2:]) / 2 < 0.6 * losses[0]
    assert (finished.out / "samples" / f"{ITERATIONS:07d}.png").stat().st_size > 500


def test_the_frozen_encoder_never_moves_and_everything_else_does(finished: SiameseTrainer) -> None:
    untouched = tiny_base().unet.state_dict()
    for name, value in finished.network.unet.state_dict().items():
        assert torch.equal(value, untouched[name]) == name.startswith(FROZEN), name
    assert all(torch.equal(value, untouched[name]) for name, value in finished.base.unet.state_dict().items()), (
        "the base stays as it came"
    )
    fresh = trainer(finished.data, finished.out / "nowhere")
    before = dict(fresh.network.named_parameters())
    moved = {
        name.split(".")[0]
        for name, value in finished.network.named_parameters()
        if not torch.equal(value, before[name])
    }
    assert moved == {"unet", "control", "hint"}


def test_a_run_that_resumes_has_the_losses_of_one_undisturbed(scenes: TrainingSet, tmp_path: Path) -> None:
    whole, first = trainer(scenes, tmp_path / "whole", iterations=8), trainer(scenes, tmp_path / "parts", iterations=8)
    undisturbed = [whole.step(i) for i in range(8)]
    assert [first.step(i) for i in range(4)] == undisturbed[:4]
    first.save(4)
    torch.manual_seed(999)
    second = trainer(scenes, tmp_path / "parts", iterations=8)
    assert second.start == 4
    assert [second.step(i) for i in range(4, 8)] == undisturbed[4:]
    assert set(undisturbed[0]) == {"mask", "image", "consistency", "augmentation", "gradient_norm"}
    with pytest.raises(ValueError, match="another number of iterations"):
        trainer(scenes, tmp_path / "parts", iterations=9)
    with pytest.raises(ValueError, match="another base"):
        trainer(scenes, tmp_path / "parts", tiny_base(seed=6), iterations=8)


def test_the_prompt_is_dropped_in_one_of_twenty_and_the_mask_never(scenes: TrainingSet, tmp_path: Path) -> None:
    run = trainer(scenes, tmp_path, batch_size=50)
    batches = [run.batch(i, iteration_generator(0, i)) for i in range(20)]
    empty = torch.cat([text.flatten(1).any(dim=1).logical_not() for _, text, _, _ in batches])
    assert empty.float().mean().item() == pytest.approx(0.05, abs=0.025)
    assert all(masks.flatten(1).any(dim=1).all() for _, _, masks, _ in batches)


def test_a_turn_takes_latent_mask_and_image_along(scenes: TrainingSet, tmp_path: Path) -> None:
    run = SiameseTrainer(
        scenes, tiny_base(), tmp_path, preset_siamese("small", tiny_base(), batch_size=4), accelerator(), has_up=False
    )
    z0, _, masks, images = run.batch(0, iteration_generator(0, 0))
    bright = (images.mean(dim=1) > -0.2).long()
    assert (bright != masks).float().mean() < 0.01
    rows = run.rows_of(run.rows, 0)
    for sample, row in enumerate(rows):
        gaps = [(z0[sample] - run.latents.bank.mean[turn, row]).abs().mean().item() for turn in range(8)]
        turn = int(np.argmin(gaps))
        assert gaps[turn] < 0.05
        assert np.array_equal(
            masks[sample].numpy(), np.rot90(whole_pairs(run.pairs, [row])[1][0], turn % 4)[:, :: -1 if turn >= 4 else 1]
        )


def test_the_exported_model_is_the_averaged_network(
    scenes: TrainingSet, finished: SiameseTrainer, tmp_path: Path
) -> None:
    card = export_siamese(
        finished.out, tmp_path, finished.base, scenes, name="siamese-scenes", version="1.0.0", notes=("a note",)
    )
    assert load_card(tmp_path) == card
    assert card.input_sets == (("mask",), ("prompt", "mask"))
    assert (
        card.defaults.steps,
        card.defaults.guidance_scale,
    ) == (50, 2.0)
    assert [entry.colour for entry in card.classes] == [(0, 0, 0), (255, 255, 255)]
    assert card.palette.kind == "listed"
    assert card.limits.max_prompt_tokens == 4
    assert card.licence == "CC BY 4.0; CC0"
    assert card.training["notes"] == ["a note"]
    system = load_system(tmp_path, device="cpu", dtype="float32")
    assert isinstance(system, SiameseDiffusionSystem)
    assert torch.equal(system.colours, finished.colours)
    z, t = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([40, 800])
    text = torch.stack([LetterTokens().encode(word) for word in ("a square of 9 pixels", "")])
    hint = mask_hint(torch.from_numpy(whole_pairs(finished.pairs, [0, 1])[1]).long(), finished.colours)
    with finished.result() as network:
        wanted = network.denoise(z, t, text, network.residuals(z, t, text, hint))
    with torch.no_grad():
        found = system.forward(z, t, {"text": text, "hint": system.hint(hint)})
    torch.testing.assert_close(found, wanted, rtol=0.01, atol=0.005)  # stored as half floats
    with pytest.raises(ExportImpossible, match="was trained on another base than tiny; give the same --base"):
        export_siamese(finished.out, tmp_path, tiny_base(seed=6), scenes, name="x", version="1.0.0")
    with pytest.raises(ExportImpossible, match="holds no checkpoint"):
        export_siamese(tmp_path, tmp_path, finished.base, scenes, name="x", version="1.0.0")


def test_what_leaves_the_paper_is_on_the_card(scenes: TrainingSet) -> None:
    base = tiny_base("v_prediction")
    told = " ".join(preset_siamese("small", base, consistency=False).deviations(base, 6))
    for part in (
        "Tiny.",
        "32 px, not 384",
        "Masks of 6 classes",
        "not [16, 32, 64, 128, 256]",
        "Without the noise consistency loss",
    ):
        assert part in told
    assert "compare velocities" in told
    assert "average (0.999)" in told
    assert "4000 iterations of batch 16" in told
    ablated = preset_siamese("paper", base, **OFF).deviations(base, 2)
    assert any("ControlNet's (an ablation" in each for each in ablated)
    assert any("Without online augmentation" in each for each in ablated)
    assert not any("classes" in each or "iterations" in each or "average" in each for each in ablated)


def test_the_papers_networks_have_the_papers_parameters() -> None:
    autoencoder, denoiser = stable_diffusion_autoencoder(), stable_diffusion_denoiser()
    unet = on_meta(build_unet, denoiser)
    base = LatentBase(
        on_meta(build_autoencoder, autoencoder),
        autoencoder,
        unet,
        denoiser,
        STABLE_DIFFUSION_CONVENTION,
        LetterTokens(),
        384,
        {"deviations": []},
    )
    paper = preset_siamese("paper", base)
    assert (paper.iterations, paper.batch_size, paper.learning_rate, paper.weight_decay) == (3000, 48, 1e-5, 1e-2)
    assert (paper.p_uncond, paper.ema_decay, paper.clip_norm, paper.consistency_weight) == (0.05, 0.0, None, 1.0)
    assert paper.deviations(base, 2) == ()
    network = on_meta(SiameseNetwork, unet, on_meta(build_hint, paper.hint))
    network.freeze_encoder()
    assert parameters_of(network.unet) == 859_520_964
    assert denoiser.residuals == 13

    def conv(c_in: int, c_out: int) -> int:
        return 9 * c_in * c_out + c_out

    pairs = sum(2 * conv(c, c) for c in (16, 32, 64, 128, 256))
    merges = sum(2 * 4 * c + 4 * c * 2 * c + conv(2 * c, 2 * c) for c in (32, 64, 128))
    assert parameters_of(network.hint) == conv(3, 16) + conv(16, 32) + pairs + merges + conv(256, 320) == 3_263_424
    frozen = sum(p.numel() for p in network.unet.parameters() if not p.requires_grad)
    # the copy of encoder and middle is what is frozen of the U-Net, and a 1 x 1 convolution for each of the 13
    # residuals
    sides = (320,) * 4 + (640,) * 3 + (1280,) * 6
    assert parameters_of(network.control) == frozen + sum(c * c + c for c in sides)


def test_what_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    folder = write_scenes(tmp_path / "scenes", 3)
    lines = (folder / "captions.jsonl").read_text().splitlines()
    (folder / "captions.jsonl").write_text("\n".join(lines[1:]))
    with pytest.raises(DatasetInvalid, match="has no text for 'scene00'"):
        trainer(TrainingSet.open(folder), tmp_path / "run")
    (folder / "captions.jsonl").write_text("\n".join(lines))
    Image.fromarray(np.full((32, 32), 255, dtype=np.uint8)).save(folder / "masks" / "scene01.png")
    with pytest.raises(DatasetInvalid, match=r"the mask of 'scene01' in .* has pixels of no class \(255\)"):
        trainer(TrainingSet.open(folder), tmp_path / "run")
    base = tiny_base()
    settings = preset_siamese("small", base)
    wrong = settings.model_copy(update={"hint": settings.hint.model_copy(update={"widths": (16, 32, 64, 128, 256)})})
    with pytest.raises(ValueError, match="makes masks 8 times smaller and the base's latents are 4 times smaller"):
        SiameseTrainer(TrainingSet.open(folder), base, tmp_path / "run", wrong, accelerator())


def test_two_classes_are_black_and_white_and_more_are_spread() -> None:
    assert class_palette(2).tolist() == [[0, 0, 0], [255, 255, 255]]
    assert len({tuple(colour) for colour in class_palette(6).tolist()}) == 6
