"""CoSimGen's training: it learns a toy dataset, resumes to the same losses, and separates its two optimisers."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from model_store.card import ModelCard, load_card, write_card
from model_store.cosimgen.config import CoSimGenConfig
from model_store.cosimgen.superres import ESPCN, small_espcn
from model_store.diffusion.ddim import DDIM
from model_store.diffusion.sampling import sample
from model_store.interface import ConditionRequest, WeightsInvalid, stack_conditions
from model_store.loading import load_system
from model_store.masks.palette import fibonacci_rgb, nearest_class
from service.datasets.reading.levels import Levels
from tests.workers.training.toy import letters, write_toy_dataset
from workers.data.listings import DatasetInvalid
from workers.data.training_set import TrainingSet
from workers.training.card_parts import ExportImpossible
from workers.training.checkpoints import CheckpointInvalid, save_checkpoint
from workers.training.cosimgen import CoSimGenTrainer
from workers.training.cosimgen_settings import CoSimGenTraining
from workers.training.export import export_model
from workers.training.superres_result import save_result

NETWORK = CoSimGenConfig(
    num_classes=3,
    size_px=16,
    width=16,
    multipliers=(1, 2),
    blocks_per_level=1,
    embedding_dims=32,
    class_feature_dims=16,
    stem=2,
)
SETTINGS = CoSimGenTraining(
    preset="small",
    iterations=400,
    batch_size=12,
    learning_rate=2e-3,
    adversarial_weight=0.01,
    warmup=5,
    decay_from=0.5,
    ema_decay=0.9,
    alignment_weight=0.1,
    prediction_type="v_prediction",
    discriminator_width=8,
    network=NETWORK,
)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    return TrainingSet.open(write_toy_dataset(tmp_path_factory.mktemp("data") / "toy"))


def trainer(data: TrainingSet, out: Path, **changes: object) -> CoSimGenTrainer:
    settings = SETTINGS.model_copy(update=changes)
    return CoSimGenTrainer(data, out, settings, Accelerator(cpu=True, mixed_precision="no"), encode=letters)


def log_lines(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(toy: TrainingSet, tmp_path_factory: pytest.TempPathFactory) -> CoSimGenTrainer:
    torch.set_num_threads(1)
    run = trainer(toy, tmp_path_factory.mktemp("run") / "whole")
    run.run(checkpoint_every=30, sample_every=400, log_every=10)
    return run


def test_a_few_dozen_steps_overfit_and_the_samples_are_what_it_saw(finished: CoSimGenTrainer) -> None:
    lines = log_lines(finished.out)
    assert sum(line["diffusion"] for line in lines[-4:]) / 4 < 0.7 * lines[0]["diffusion"]
    assert lines[-1]["triplet"] < lines[0]["triplet"]
    network = finished.averaged()
    sets = torch.tensor([[0.0, 1, 0], [0, 0, 1]]).repeat(4, 1)
    with torch.no_grad():
        condition, null = network.class_encoder(sets), network.class_encoder(torch.zeros_like(sets))
    made = sample(
        lambda x, t, condition: network(x, t, condition["class"]),
        DDIM(SETTINGS.convention),
        {"class": condition},
        {"class": null},
        range(8),
        NETWORK.sample_shape,
        steps=15,
        guidance_scale=2.0,
    )
    masks = nearest_class(made[:, 3:].permute(0, 2, 3, 1).numpy(), fibonacci_rgb(3))
    blue = (made[:, 2] - made[:, 0]).mean(dim=(1, 2))
    for i in range(8):
        wanted = 1 if i % 2 == 0 else 2
        assert (masks[i] == wanted).mean() > 0.7
        assert (blue[i] > 0) == (wanted == 1)
    assert (finished.out / "samples" / "0000400.png").stat().st_size > 500


def test_a_run_that_stops_and_resumes_has_the_losses_of_one_that_did_not(
    toy: TrainingSet, finished: CoSimGenTrainer, tmp_path: Path
) -> None:
    trainer(toy, tmp_path).run(checkpoint_every=20, sample_every=1000, log_every=10, until=40)
    resumed = trainer(toy, tmp_path)
    assert resumed.start == 40
    resumed.run(checkpoint_every=1000, sample_every=1000, log_every=10, until=60)
    whole, parts = log_lines(finished.out)[:6], log_lines(tmp_path)
    for key in ("diffusion", "triplet", "alignment", "discriminator", "adversarial", "gradient_norm"):
        assert [line[key] for line in parts] == pytest.approx([line[key] for line in whole], rel=1e-5)


def test_the_discriminator_is_frozen_in_the_generators_step_and_the_generator_in_its(
    toy: TrainingSet, tmp_path: Path
) -> None:
    run = trainer(toy, tmp_path)
    fake = torch.zeros(2, 6, 16, 16, requires_grad=True)
    run._adversarial_loss(fake).backward()
    assert fake.grad is not None
    assert fake.grad.abs().sum() > 0
    assert all(p.grad is None for p in run.discriminator.parameters())
    before = [p.clone() for p in run.network.parameters()]
    weights_before = [p.clone() for p in run.discriminator.parameters()]
    run._discriminator_step(torch.ones(2, 6, 16, 16), torch.zeros(2, 6, 16, 16))
    assert all(p.grad is None and torch.equal(p, was) for p, was in zip(run.network.parameters(), before, strict=True))
    assert any(not torch.equal(p, was) for p, was in zip(run.discriminator.parameters(), weights_before, strict=True))


def test_the_condition_is_dropped_as_often_as_p_uncond_says(toy: TrainingSet, tmp_path: Path) -> None:
    run = trainer(toy, tmp_path, p_uncond=0.25)
    dropped: list[float] = []
    forward = run.objective.forward

    def counting(
        x: torch.Tensor, t: torch.Tensor, multi_hot: torch.Tensor, drop: torch.Tensor, text: torch.Tensor
    ) -> object:
        dropped.extend(drop.float().tolist())
        return forward(x, t, multi_hot, drop, text)

    run.objective.forward = counting
    for iteration in range(40):
        run.step(iteration)
    assert sum(dropped) / len(dropped) == pytest.approx(0.25, abs=0.06)


def test_flips_and_turns_only_where_the_dataset_says_there_is_no_up(toy: TrainingSet, tmp_path: Path) -> None:
    upright, free = (
        trainer(toy, tmp_path / "a"),
        CoSimGenTrainer(toy, tmp_path / "b", SETTINGS, Accelerator(cpu=True), has_up=False, encode=letters),
    )
    originals = {
        pair.numpy().tobytes() for pair in upright.pairs.batch(0, torch.Generator().manual_seed(0))[0].contiguous()
    }
    seen = [
        pair.numpy().tobytes()
        for i in range(6)
        for pair in upright.pairs.batch(i, torch.Generator().manual_seed(i))[0].contiguous()
    ]
    assert set(seen) == originals
    assert len(originals) == 12
    turned = {
        pair.numpy().tobytes()
        for i in range(6)
        for pair in free.pairs.batch(i, torch.Generator().manual_seed(i))[0].contiguous()
    }
    assert len(turned) > 2 * len(originals)


def test_the_exported_model_loads_samples_and_refuses_altered_weights(
    toy: TrainingSet, finished: CoSimGenTrainer, tmp_path: Path
) -> None:
    card = export_model(finished.out, tmp_path, toy, name="cosimgen-toy", version="1.2.3")
    assert load_card(tmp_path) == card
    assert card.queryable == ("night", "day")
    system = load_system(tmp_path, device="cpu", dtype="float32")
    x, t = torch.randn(1, *system.sample_shape), torch.tensor([500])
    condition = stack_conditions([system.guidance_inputs(ConditionRequest(classes=("day",))).cond])
    trained = finished.averaged()
    with torch.no_grad():
        expected = trained(x, t, trained.class_encoder(torch.tensor([[0.0, 0, 1]])))
    torch.testing.assert_close(system.forward(x, t, condition), expected, rtol=0.02, atol=0.02)  # stored as half floats
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(WeightsInvalid, match="sha256"):
        load_system(tmp_path)


def test_a_folder_of_another_network_is_not_continued(toy: TrainingSet, finished: CoSimGenTrainer) -> None:
    with pytest.raises(ValueError, match="another network"):
        trainer(toy, finished.out, network=NETWORK.model_copy(update={"width": 8}))


def test_a_folder_of_another_recipe_or_of_other_data_is_not_continued(
    toy: TrainingSet, finished: CoSimGenTrainer, tmp_path: Path
) -> None:
    with pytest.raises(
        CheckpointInvalid, match="holds a run on 'toy', and the data is now 'other'; choose another --out"
    ):
        trainer(replace(toy, name="other"), finished.out)
    with pytest.raises(CheckpointInvalid, match="the data is now 'toy through --window=0,4095'"):
        trainer(replace(toy, window=Levels(0, 4095)), finished.out)
    save_checkpoint(tmp_path, 1, {"network.w": torch.ones(1)}, {"settings": {"hint": {}}})
    for going_on in (
        lambda: trainer(toy, tmp_path),
        lambda: export_model(tmp_path, tmp_path / "model", toy, name="x", version="1.0.0"),
    ):
        with pytest.raises(
            CheckpointInvalid, match="holds a run of another `twinset train` command, or version; choose another --out"
        ):
            going_on()


def test_a_class_of_no_training_image_is_not_offered(toy: TrainingSet, tmp_path: Path) -> None:
    stems = [stem for number, stem in enumerate(toy.stems("train")) if number % 3 == 0]  # night alone
    folder = Path(shutil.copytree(toy.folder, tmp_path / "data"))
    (folder / "train.txt").write_text("\n".join(stems))
    data = TrainingSet.open(folder)
    run = trainer(data, tmp_path / "run", iterations=1)
    assert [entry.queryable for entry in run.data.classes] == [False, True, False]
    assert "no training mask shows day" in run.notices[-1]
    run.run(checkpoint_every=1, sample_every=9, log_every=1)
    card = export_model(run.out, tmp_path / "model", run.data, name="toy", version="1.0.0")
    assert card.queryable == ("night",)


def test_data_without_a_class_that_can_be_asked_for_are_refused(toy: TrainingSet, tmp_path: Path) -> None:
    unqueryable = tuple(replace(entry, queryable=False) for entry in toy.classes)
    with pytest.raises(
        DatasetInvalid, match=r"no class .* can be requested: nothing, night, day are read as unlabelled background"
    ):
        trainer(replace(toy, classes=unqueryable), tmp_path)


def test_the_card_has_the_guidance_asked_for_and_the_sizes_that_the_super_resolution_was_trained_for(
    toy: TrainingSet, finished: CoSimGenTrainer, tmp_path: Path
) -> None:
    def export(superres: Path | None) -> ModelCard:
        return export_model(
            finished.out, tmp_path / "model", toy, name="toy", version="1.0.0", superres=superres, guidance_scale=0.0
        )

    assert export(None).defaults.guidance_scale == 0.0
    network = ESPCN(small_espcn())
    for base_px, times in ((16, 1), (8, 2)):
        save_result(
            network, tmp_path / f"{base_px}", {"settings": {"base_px": base_px, "times": times}, "deviations": []}
        )
    card = export(tmp_path / "16")
    assert card.sizes_px == (16, 32)
    assert card.default_size_px == 32
    with pytest.raises(ExportImpossible, match=r"enlarges pairs of 8 px and this model makes 16 px; .*--base-px 16"):
        export(tmp_path / "8")
    (tmp_path / "16" / "superres.safetensors").write_bytes(b"cut")
    with pytest.raises(ExportImpossible, match=r"16 cannot be read .*; train it again"):
        export(tmp_path / "16")
    with pytest.raises(
        ExportImpossible,
        match=r"lacks superres.json or superres.safetensors; give a folder of `twinset train "
        r"superres`",
    ):
        export(finished.out)


def test_at_the_end_the_text_projection_alone_moves_onto_every_class_set(toy: TrainingSet, tmp_path: Path) -> None:
    run = trainer(toy, tmp_path, iterations=20, alignment_iterations=300)
    run.run(log_every=10)
    before = run.averaged()
    left = run.align_text()
    after = trainer(toy, tmp_path, iterations=20)  # as the checkpoint keeps it
    assert after.aligned
    assert not trainer(toy, tmp_path, iterations=21).aligned, "a continued run has to be aligned again"
    after = after.averaged()
    sets = torch.tensor([[0.0, 1, 0], [0, 0, 1], [0, 1, 1]])
    texts = letters(["A photo of night", "A photo of day", "A photo of night and day"])

    def gap(network: object) -> float:
        with torch.no_grad():
            return (network.text_encoder(texts) - network.class_encoder(sets)).square().sum(dim=1).mean().item()

    assert gap(after) < 0.1 * gap(before)
    assert left < 0.5 * gap(before)
    unchanged = {k: v for k, v in before.state_dict().items() if not k.startswith("text_encoder.")}
    assert all(torch.equal(after.state_dict()[k], v) for k, v in unchanged.items())


def test_a_finished_run_that_is_exported_again_keeps_what_was_measured_of_the_same_weights(
    finished: CoSimGenTrainer, tmp_path: Path
) -> None:
    export_model(finished.out, tmp_path, finished.data, name="toy", version="1.0.0")
    card = load_card(tmp_path)
    write_card(tmp_path, card.model_copy(update={"measured": {"fid": 12.5}}))
    again = export_model(finished.out, tmp_path, finished.data, name="toy", version="1.0.1", title="Better words")
    assert (again.measured, load_card(tmp_path).title) == ({"fid": 12.5}, "Better words")
    write_card(
        tmp_path,
        again.model_copy(
            update={"files": {name: file.model_copy(update={"sha256": "0" * 64}) for name, file in again.files.items()}}
        ),
    )
    assert export_model(finished.out, tmp_path, finished.data, name="toy", version="1.0.2").measured == {}
