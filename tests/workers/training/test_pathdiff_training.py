"""PathDiff's training: unpaired conditions, a U-Net that never moves, and the loss by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from model_store.card import load_card
from model_store.latent.base import LatentBase
from model_store.latent.denoiser import build_unet, on_meta, parameters_of, pathdiff_denoiser
from model_store.loading import load_system
from model_store.masks.resize import majority_resize
from model_store.pathdiff.hint import mask_hint, null_hint
from model_store.pathdiff.system import PathDiffSystem
from model_store.pathdiff.unpaired import draw_conditions
from service.datasets.classes import ClassList
from service.datasets.items import DatasetItem
from service.kit.png import encode_image
from tests.model_store.latent.tiny import LetterTokens
from tests.service.datasets.scenes import export
from tests.workers.training.scenes import (
    accelerator,
    awaken,
    logged,
    tiny_base,
    write_scenes,
)
from workers.data.listings import DatasetInvalid
from workers.data.pairs import whole_pairs
from workers.data.pixels import as_indices
from workers.data.training_set import TrainingSet
from workers.training.card_parts import ExportImpossible
from workers.training.checkpoints import CheckpointInvalid, load_checkpoint, save_checkpoint
from workers.training.latent_export import export_pathdiff, export_siamese
from workers.training.latents import noise_latents
from workers.training.loop import iteration_generator
from workers.training.pathdiff import PathDiffTrainer, preset_pathdiff

torch.set_num_threads(1)

ITERATIONS = 80


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingSet, TrainingSet]:
    parent = tmp_path_factory.mktemp("data")
    text = write_scenes(parent / "text", 5, name="texts", licence="CC BY-SA 4.0", has_up=False)
    return TrainingSet.open(text, images_only=True), TrainingSet.open(write_scenes(parent / "mask", 6, seed=1))


def trainer(
    folders: tuple[TrainingSet, TrainingSet], out: Path, base: LatentBase | None = None, **changes: object
) -> PathDiffTrainer:
    base = base or tiny_base()
    values = {"iterations": ITERATIONS, "batch_size": 8, "learning_rate": 5e-3, "warmup": 5, "ema_decay": 0.8}
    return PathDiffTrainer(*folders, base, out, preset_pathdiff("small", base, 11, **(values | changes)), accelerator())


@pytest.fixture(scope="module")
def finished(folders: tuple[TrainingSet, TrainingSet], tmp_path_factory: pytest.TempPathFactory) -> PathDiffTrainer:
    run = trainer(folders, tmp_path_factory.mktemp("run") / "whole")
    run.run(checkpoint_every=40, sample_every=ITERATIONS, log_every=5)
    return run


def test_a_few_dozen_steps_lower_the_loss_and_samples_are_drawn(finished: PathDiffTrainer) -> None:
    losses = logged(finished.out, "denoising")
    assert sum(losses[-2:]) / 2 < 0.7 * losses[0]
    assert (finished.out / "samples" / f"{ITERATIONS:07d}.png").stat().st_size > 500


def test_only_control_and_hint_are_trained_and_the_unet_never_moves(finished: PathDiffTrainer) -> None:
    untouched = tiny_base().unet.state_dict()
    assert all(torch.equal(value, untouched[name]) for name, value in finished.network.unet.state_dict().items())
    assert {name.split(".")[0] for name in finished.trained_names} == {"control", "hint"}
    fresh = trainer((finished.text_data, finished.mask_data), finished.out / "nowhere")
    before = dict(fresh.network.named_parameters())
    moved = {
        name.split(".")[0]
        for name, value in finished.network.named_parameters()
        if not torch.equal(value, before[name])
    }
    assert moved == {"control", "hint"}
    awaken(fresh.network)
    z0, text, live_state = fresh.batch(0, iteration_generator(0, 0))
    fresh.network(z0, torch.full((8,), 500), text, live_state).square().mean().backward()
    assert all(p.grad is None for p in fresh.network.unet.parameters())
    for part, least in ((fresh.network.control, 20), (fresh.network.hint, 8)):
        assert sum(bool(p.grad.any()) for p in part.parameters() if p.grad is not None) >= least


def test_a_run_that_resumes_has_the_losses_of_one_undisturbed(
    folders: tuple[TrainingSet, TrainingSet], tmp_path: Path
) -> None:
    whole, first = trainer(folders, tmp_path / "whole"), trainer(folders, tmp_path / "parts")
    undisturbed = [whole.step(i) for i in range(6)]
    assert [first.step(i) for i in range(3)] == undisturbed[:3]
    first.save(3)
    torch.manual_seed(999)
    second = trainer(folders, tmp_path / "parts")
    assert second.start == 3
    assert [second.step(i) for i in range(3, 6)] == undisturbed[3:]


def test_every_sample_has_the_image_and_the_condition_of_one_dataset(
    folders: tuple[TrainingSet, TrainingSet], tmp_path: Path
) -> None:
    run = trainer(folders, tmp_path, batch_size=40, p_uncond=0.3)
    z0, text, live_state = run.batch(2, iteration_generator(0, 2))
    drawn = draw_conditions(40, iteration_generator(0, 2), p_uncond=0.3)
    assert torch.equal(text.flatten(1).any(dim=1), drawn.with_text)
    assert torch.equal(live_state[:, 6].flatten(1).all(dim=1), drawn.with_mask)
    assert torch.equal(live_state.flatten(1).any(dim=1), drawn.with_mask)
    assert {int(x) for x in (drawn.with_text.sum(), drawn.with_mask.sum())}.isdisjoint({0})
    texts, masks = run.rows_of(run.text_rows, 2), run.rows_of(run.mask_rows, 2)
    for sample in range(40):
        bank, row = (run.text_latents, texts[sample]) if drawn.from_text[sample] else (run.mask_latents, masks[sample])
        gaps = (bank.bank.mean - z0[sample]).abs().flatten(2).mean(dim=2)
        assert (gaps.argmin() % bank.bank.mean.shape[1]).item() == row
        assert gaps.min() < 0.05
        if drawn.with_text[sample]:
            assert torch.equal(text[sample], LetterTokens().encode(run.captions.texts[row][0]))
        if drawn.with_mask[sample]:
            wanted = mask_hint(as_indices(whole_pairs(run.mask_pairs, [row])[1], [0]), run.colours)[0]
            assert torch.equal(live_state[sample], wanted)
    assert run.text_turns == 8
    assert run.mask_turns == 1
    assert torch.equal(live_state[~drawn.with_mask], null_hint(int((~drawn.with_mask).sum()), 32))


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_loss_is_the_papers_written_out(
    folders: tuple[TrainingSet, TrainingSet], tmp_path: Path, prediction_type: str
) -> None:
    run = trainer(folders, tmp_path, tiny_base(prediction_type))
    awaken(run.network)
    generator = iteration_generator(0, 4)
    z0, text, live_state = run.batch(4, generator)
    noised = noise_latents(z0, run.abar, prediction_type, generator)
    with torch.no_grad():
        down, middle = run.network.control(
            noised.z,
            noised.t,
            encoder_hidden_states=text,
            controlnet_cond=run.network.hint(live_state),
            return_dict=False,
        )
        output = run.base.unet(
            noised.z,
            noised.t,
            encoder_hidden_states=text,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
        ).sample.numpy()
    alpha, sigma = (np.sqrt(x.numpy())[:, None, None, None] for x in (noised.abar, 1 - noised.abar))
    eps, z0 = noised.noise.numpy(), z0.numpy()
    wanted = np.mean((output - (eps if prediction_type == "epsilon" else alpha * eps - sigma * z0)) ** 2)
    assert run.step(4)["denoising"] == pytest.approx(wanted, rel=1e-4)


def test_an_image_in_both_datasets_is_refused_by_name(folders: tuple[TrainingSet, TrainingSet], tmp_path: Path) -> None:
    text, _ = folders
    same = TrainingSet.open(text.folder)
    with pytest.raises(DatasetInvalid, match=r"'scene00' of .* is the same image as 'scene00' of"):
        trainer((text, same), tmp_path)
    for name, stems in (("text.txt", "scene00\nscene01"), ("mask.txt", "scene02\nscene03")):
        (tmp_path / name).write_text(stems)
    base = tiny_base()
    halves = PathDiffTrainer(
        TrainingSet.open(text.folder, tmp_path / "text.txt", images_only=True),
        TrainingSet.open(text.folder, tmp_path / "mask.txt"),
        base,
        tmp_path / "run",
        preset_pathdiff("small", base, 4),
        accelerator(),
    )
    assert halves.mask_stems == ("scene02", "scene03")
    assert len(halves.captions.texts) == 2


def test_the_exported_model_is_the_averaged_network(
    folders: tuple[TrainingSet, TrainingSet], finished: PathDiffTrainer, tmp_path: Path
) -> None:
    text_data, mask_data = folders
    card = export_pathdiff(
        finished.out,
        tmp_path,
        finished.base,
        text_data,
        mask_data,
        name="pathdiff-scenes",
        version="1.0.0",
        guidance_target="joint",
    )
    assert load_card(tmp_path) == card
    assert card.input_sets == (("prompt",), ("mask",), ("prompt", "mask"))
    assert card.guidance_targets == ("text", "mask", "joint")
    assert card.guidance_target == "joint"
    assert (card.defaults.steps, card.defaults.guidance_scale) == (
        100,
        1.5,
    )
    assert card.licence == "CC BY 4.0; CC BY-SA 4.0; CC0"
    assert [(each["name"], each["images"], each["for"]) for each in card.training_data] == [
        ("texts", 5, "captions"),
        ("scenes", 6, "masks"),
    ]
    assert card.training["augmentation"] == "turns [8, 1]"
    assert set(card.example_prompts) == {text for row in finished.captions.texts for text in row}
    assert len(set(card.deviations)) == len(card.deviations)
    system = load_system(tmp_path, device="cpu", dtype="float32")
    assert isinstance(system, PathDiffSystem)
    z, t = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([40, 800])
    text = torch.stack([LetterTokens().encode(word) for word in ("a square of 9 pixels", "")])
    hint = torch.cat(
        [
            null_hint(1, 32),
            mask_hint(torch.from_numpy(whole_pairs(finished.mask_pairs, [0])[1]).long(), finished.colours),
        ]
    )
    with finished.result() as network:
        wanted = network(z, t, text, hint)
    with torch.no_grad():
        found = system.forward(z, t, {"text": text, "hint": system.hint(hint)})
    torch.testing.assert_close(found, wanted, rtol=0.01, atol=0.005)  # stored as half floats
    with pytest.raises(ExportImpossible, match="another kind of network, not of SiameseTraining"):
        export_siamese(finished.out, tmp_path, finished.base, mask_data, name="x", version="1.0.0")


def test_paper_settings_and_what_leaves_them() -> None:
    base = tiny_base()
    paper = preset_pathdiff("paper", base, 1200)
    assert (paper.iterations, paper.batch_size, paper.learning_rate, paper.warmup) == (
        60 * 1200 // 72,
        72,
        3.75e-5,
        1000,
    )
    assert (paper.p_split, paper.p_uncond, paper.ema_decay) == (0.5, 0.1, 0.0)
    told = " ".join(paper.deviations(base))
    assert "Tiny." in told
    assert "32 px, not 256" in told
    assert "read by letters (4 tokens of 8), not by PLIP" in told
    assert "null mask" in told
    small = " ".join(preset_pathdiff("small", base, 1200, p_split=0.4).deviations(base))
    assert "Batch 16 and learning rate 0.0002, not 72 and 3.75e-05" in small
    assert "p_split is 0.4" in small
    assert "Batch" not in told
    assert "average" not in told
    unet = on_meta(build_unet, pathdiff_denoiser())
    assert parameters_of(unet) == 400_920_579


def touching(folder: Path, *, with_map: bool = True) -> TrainingSet:
    """A dataset of one mask with two objects that touch, and its map."""
    labels = np.zeros((32, 32), dtype=np.uint8)
    labels[4:28, 4:28] = 1
    numbers = np.where(labels > 0, np.where(np.arange(32) < 16, 5, 6)[None], 0).astype(np.int32)
    image = np.full((32, 32, 3), 90, dtype=np.uint8)
    maps = numbers if with_map else None
    items = [DatasetItem("pair", encode_image(image, {}), labels, maps, split="train")]
    classes = ClassList.of(["ground", "cell"], background="ground")
    return TrainingSet.open(export(items, classes, folder, format="folders"))


def test_objects_that_touch_have_an_edge_between_them_in_the_hints_unless_that_is_not_wanted(
    folders: tuple[TrainingSet, TrainingSet], tmp_path: Path
) -> None:
    masks = touching(tmp_path / "pairs")
    labels = masks.files.mask(0)
    hints = {}
    for wanted in ("maps", "regions", "none"):
        run = trainer((folders[0], masks), tmp_path / wanted, instances=wanted)
        _, keys = whole_pairs(run.mask_pairs, [0])
        hints[wanted] = run.hints(torch.from_numpy(keys).long())
        run.step(0)
    size = hints["none"].shape[-1]
    assert torch.equal(hints["regions"], hints["none"]), "one region at the network's own size"
    expected = mask_hint(torch.from_numpy(majority_resize(labels, size)).long()[None], run.colours)
    assert torch.equal(hints["none"], expected)
    between = (hints["maps"] != hints["none"])[0, 3]
    assert between[:, size // 2 - 1 : size // 2 + 1].any()
    between[:, size // 2 - 1 : size // 2 + 1] = False
    assert not between.any()


@pytest.mark.parametrize(("wanted", "with_map"), [("maps", True), ("maps", False), ("regions", True), ("none", True)])
def test_the_card_says_which_instances_the_model_saw(
    folders: tuple[TrainingSet, TrainingSet], tmp_path: Path, wanted: str, with_map: bool
) -> None:
    masks = touching(tmp_path / "pairs", with_map=with_map)
    run = trainer((folders[0], masks), tmp_path / "run", instances=wanted)
    run.save(1)
    card = export_pathdiff(
        run.out, tmp_path / "model", run.base, run.text_data, run.mask_data, name="cells", version="1.0.0"
    )
    seen = wanted if with_map else "none"
    assert card.training["instances"] == seen
    assert card.training["instance_maps"] == (seen == "maps")
    [edges] = [line for line in card.deviations if "edges of the label map" in line]
    assert (
        edges.partition("label map, ")[2]
        == {
            "maps": "and those between single instances, where the dataset has maps of them.",
            "regions": "and those between the connected regions of a class, numbered before masks are resized.",
            "none": "not those of single instances.",
        }[seen]
    )


def test_a_run_resumes_with_the_same_instances_alone(folders: tuple[TrainingSet, TrainingSet], tmp_path: Path) -> None:
    data, out = (folders[0], touching(tmp_path / "pairs")), tmp_path / "run"
    trainer(data, out).save(3)
    assert trainer(data, out, instances="maps").start == 3
    for other in ("regions", "none"):
        words = f"holds a run with --instances maps, and it is now --instances {other}; give the former, or choose"
        with pytest.raises(CheckpointInvalid, match=words):
            trainer(data, out, instances=other)
    without = folders[0], touching(tmp_path / "again", with_map=False)
    with pytest.raises(CheckpointInvalid, match=r"a run that saw instance maps, and .* now has none; train on the"):
        trainer(without, out)


def test_a_run_of_an_earlier_version_resumes_under_the_settings_new_names(
    folders: tuple[TrainingSet, TrainingSet], tmp_path: Path
) -> None:
    for former, name in (("given", "maps"), ("no", "none")):
        run = trainer(folders, tmp_path / former, instances=name)
        run.save(2)
        _, tensors, about = load_checkpoint(run.out) or (0, {}, {})
        about["settings"]["instances"] = former
        del about["instances"]
        save_checkpoint(run.out, 2, tensors, about)
        assert trainer(folders, tmp_path / former, instances=name).start == 2
        with pytest.raises(CheckpointInvalid, match=f"with --instances {name}, and it is now --instances regions"):
            trainer(folders, tmp_path / former, instances="regions")
