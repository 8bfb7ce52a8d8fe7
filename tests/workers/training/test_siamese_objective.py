"""Siamese-Diffusion's losses: each by hand, gradients where the paper has them, ControlNet with all its parts off."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.workers.training.scenes import awaken, tiny_base, write_scenes
from tests.workers.training.siamese_runs import (
    FROZEN,
    ITERATIONS,
    OFF,
    losses_of,
    noised_batch,
    reached,
    trainer,
)
from workers.data.training_set import TrainingSet
from workers.training.latents import Noised

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    return TrainingSet.open(write_scenes(tmp_path_factory.mktemp("data") / "scenes", 6))


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_all_four_losses_are_the_papers_written_out(scenes: TrainingSet, tmp_path: Path, prediction_type: str) -> None:
    run = trainer(scenes, tmp_path, tiny_base(prediction_type))
    awaken(run.network)
    iteration = ITERATIONS // 2
    with torch.no_grad():
        found = losses_of(run, iteration)
        noised, text, masks, images = noised_batch(run, iteration)
        unet, control, hint = run.network.unet, run.network.control, run.network.hint

        def controls(z: Tensor, t: Tensor, text: Tensor, image: Tensor) -> list[Tensor]:
            down, middle = control(z, t, encoder_hidden_states=text, controlnet_cond=hint(image), return_dict=False)
            return [*down, middle]

        def predict(z: Tensor, t: Tensor, text: Tensor, residuals: list[Tensor]) -> np.ndarray:
            *down, middle = residuals
            return unet(
                z,
                t,
                encoder_hidden_states=text,
                down_block_additional_residuals=tuple(down),
                mid_block_additional_residual=middle,
            ).sample.numpy()

        c_m, c_i = (controls(noised.z, noised.t, text, image) for image in (masks, images))
        out_m = predict(noised.z, noised.t, text, c_m)
        out_mix = predict(noised.z, noised.t, text, [0.5 * i + m for i, m in zip(c_i, c_m, strict=True)])
        z, eps, target = noised.z.numpy(), noised.noise.numpy(), noised.target.numpy()
        alpha, sigma = (np.sqrt(x.numpy())[:, None, None, None] for x in (noised.abar, 1 - noised.abar))
        noise = prediction_type == "epsilon"
        z0_again = (z - sigma * out_mix) / alpha if noise else alpha * z - sigma * out_mix
        z_again = alpha * z0_again + sigma * eps
        target_again = eps if prediction_type == "epsilon" else alpha * eps - sigma * z0_again
        chosen = noised.t.numpy() <= 200
        assert 0 < chosen.sum() < 6
        again = torch.from_numpy(z_again[chosen]).float()
        t, words = noised.t[chosen], text[chosen]
        out_again = predict(again, t, words, controls(again, t, words, masks[chosen]))
    wanted = {
        "mask": np.mean((out_m - target) ** 2),
        "image": np.mean((out_mix - target) ** 2),
        "consistency": np.mean((out_m - out_mix) ** 2),
        "augmentation": np.sum((out_again - target_again[chosen]) ** 2) / target.size,
    }
    assert {name: value.item() for name, value in found.items()} == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_image_loss_reaches_control_and_hint_and_no_weight_of_the_unet(
    scenes: TrainingSet, tmp_path: Path, precision: str
) -> None:
    run = trainer(scenes, tmp_path)
    awaken(run.network)
    network, (noised, text, masks, images) = run.network, noised_batch(run, 30)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        by_mask = network.residuals(noised.z, noised.t, text, masks)
        predicted = network.denoise(noised.z, noised.t, text, by_mask)
        mixed = run.objective.image_branch_output(noised, text, images, by_mask, 30)
    F.mse_loss(mixed.float(), noised.target).backward(retain_graph=True)
    assert all(p.grad is None for p in network.unet.parameters())
    assert reached(network.control) > 20
    assert reached(network.hint) > 10
    network.zero_grad(set_to_none=True)
    F.mse_loss(predicted.float(), noised.target).backward()
    assert all((p.grad is None) == n.startswith(FROZEN) for n, p in network.unet.named_parameters())
    assert reached(network.unet.up_blocks) > 20
    assert reached(network.control) > 20
    assert reached(network.hint) > 10


def test_consistency_teaches_the_mask_branch_alone(scenes: TrainingSet, tmp_path: Path) -> None:
    run = trainer(scenes, tmp_path)
    awaken(run.network)
    seen: list[Tensor] = []
    branch = run.objective.image_branch_output

    def watched(*given: object) -> Tensor:
        seen.append(branch(*given))
        seen[-1].retain_grad()
        return seen[-1]

    run.objective.image_branch_output = watched
    losses = losses_of(run, 30)
    [mixed] = seen
    for name in ("consistency", "augmentation"):
        run.network.zero_grad(set_to_none=True)
        losses[name].backward(retain_graph=True)
        assert mixed.grad is None
        assert reached(run.network.unet.up_blocks) > 20
        assert reached(run.network.control) > 20
    losses["image"].backward()
    assert mixed.grad is not None
    assert mixed.grad.any()


def test_the_weights_grow_over_the_training_and_no_forward_is_made_for_nothing(
    scenes: TrainingSet, tmp_path: Path
) -> None:
    run, rows = trainer(scenes, tmp_path), []
    awaken(run.network)
    run.network.unet.register_forward_pre_hook(lambda module, given: rows.append(len(given[0])))
    with torch.no_grad():
        first = losses_of(run, 0)
        assert torch.equal(first["mask"], first["image"]), "w_i is 0 at the start: c_mix is c_m"
        assert first["consistency"] == 0
        losses_of(run, 20)
        assert rows == [6] * 4, "w_a is 0 up to a third of the run"
        later = losses_of(run, 21)
        assert len(rows) == 7
        assert 0 < rows[-1] < 6, "only the samples with t <= 200 run again"
        assert later["augmentation"] > 0
        assert later["mask"] != later["image"]
        late = noised_batch(run, 21)[0]
        none = Noised(late.z, late.noise, late.target, late.t.clamp(min=201), late.abar)
        assert run.objective.augmented(none, *noised_batch(run, 21)[1:3], late.z, 50) == 0
        assert len(rows) == 7


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"consistency": False}, {"mask", "image", "augmentation"}),
        ({"augmentation": False}, {"mask", "image", "consistency"}),
        ({"dhi": False}, {"mask", "image", "consistency", "augmentation"}),
        ({"consistency": False, "augmentation": False}, {"mask"}),
        (OFF, {"mask"}),
    ],
)
def test_each_ablation_leaves_out_its_part(
    scenes: TrainingSet, tmp_path: Path, changes: dict[str, bool], names: set[str]
) -> None:
    run = trainer(scenes, tmp_path, **changes)
    assert set(run.step(40)) == names | {"gradient_norm"}
    assert type(run.network.hint).__name__ == (
        "DenseHintInput" if changes.get("dhi", True) else "ControlNetConditioningEmbedding"
    )


def test_with_all_parts_off_a_step_is_controlnets(scenes: TrainingSet, tmp_path: Path) -> None:
    run = trainer(scenes, tmp_path, **OFF)
    awaken(run.network)
    plain = copy.deepcopy(run.network)
    noised, text, masks, _ = noised_batch(run, 40)
    down, middle = plain.control(
        noised.z, noised.t, encoder_hidden_states=text, controlnet_cond=plain.hint(masks), return_dict=False
    )
    predicted = plain.unet(
        noised.z,
        noised.t,
        encoder_hidden_states=text,
        down_block_additional_residuals=down,
        mid_block_additional_residual=middle,
    ).sample
    wanted = F.mse_loss(predicted, noised.noise)
    wanted.backward()
    losses = losses_of(run, 40)
    assert list(losses) == ["mask"]
    assert torch.equal(losses["mask"], wanted)
    losses["mask"].backward()
    for (name, ours), (_, theirs) in zip(run.network.named_parameters(), plain.named_parameters(), strict=True):
        if theirs.grad is None:
            assert ours.grad is None, name
        else:
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-7)
