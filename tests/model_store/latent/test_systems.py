"""The two mask systems behind the engine: guidance by target, number of forwards, hint and text once a sample."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from model_store.diffusion.ddim import DDIM
from model_store.diffusion.noise import SampleNoise
from model_store.interface import ConditionRequest, MaskInput, stack_conditions
from tests.model_store.latent.tiny import SIZE_PX, latent_card, tiny_system
from workers.engine import Engine, EngineModel, SampleRequest

torch.set_num_threads(1)


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine(cpu_threads=1)
    yield engine
    engine.stop()


def a_mask(seed: int = 0) -> MaskInput:
    return MaskInput.of((np.random.default_rng(seed).random((SIZE_PX, SIZE_PX)) < 0.3).astype(np.uint8))


def by_hand(system: object, seed: int, steps: int, output_at: object) -> Tensor:
    """A plain DDIM loop over one sample; ``output_at(x, t)`` is what guidance should give."""
    ddim = DDIM(system.card.sampler)
    x = SampleNoise(seed, system.sample_shape).draw()[None]
    for t in ddim.timesteps(steps):
        x = ddim.step(x, output_at(x, t[None]), t[None], ddim.previous(t[None], steps), torch.zeros(1), None)
    return x[0]


@pytest.mark.parametrize("target", ["text", "mask", "joint"])
def test_pathdiff_guides_towards_its_target_as_written_out(engine: Engine, target: str) -> None:
    system, mask, scale = tiny_system("pathdiff"), a_mask(), 2.5
    request = ConditionRequest(prompt="many nuclei", mask=mask, guidance_target=target)
    [made] = engine.submit(EngineModel(system, 4), [SampleRequest(7, system.guidance_inputs(request), 5, scale)])

    both = system.guidance_inputs(ConditionRequest(prompt="many nuclei", mask=mask)).cond
    text_only = system.guidance_inputs(ConditionRequest(prompt="many nuclei")).cond
    mask_only = system.guidance_inputs(ConditionRequest(mask=mask)).cond
    nothing = {"text": mask_only["text"], "hint": text_only["hint"]}
    null = {"text": mask_only, "mask": text_only, "joint": nothing}[target]

    def output(x: Tensor, t: Tensor) -> Tensor:
        e, e_null = (system.forward(x, t, stack_conditions([c])) for c in (both, null))
        return e_null + scale * (e - e_null)

    torch.testing.assert_close(made.result(30), by_hand(system, 7, 5, output), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("request_", "rows"),
    [
        (ConditionRequest(mask=a_mask()), 1),  # empty text: both branches of text guidance are equal
        (ConditionRequest(prompt="", mask=a_mask()), 1),
        (ConditionRequest(prompt="few nuclei"), 2),
        (ConditionRequest(prompt="few nuclei", mask=a_mask()), 2),
        (ConditionRequest(prompt="few nuclei", guidance_target="mask"), 1),  # no mask to take away
        (ConditionRequest(mask=a_mask(), guidance_target="mask"), 2),
        (ConditionRequest(mask=a_mask(), guidance_target="joint"), 2),
    ],
)
def test_a_step_is_one_forward_and_guidance_takes_a_second_row_only_where_it_compares(
    engine: Engine, request_: ConditionRequest, rows: int
) -> None:
    system = tiny_system("pathdiff")
    calls: list[int] = []
    forward = system.forward

    def counted(x: Tensor, t: Tensor, condition: object) -> Tensor:
        calls.append(len(x))
        return forward(x, t, condition)

    system.forward = counted  # type: ignore[method-assign]
    [made] = engine.submit(EngineModel(system, 4), [SampleRequest(1, system.guidance_inputs(request_), 6, 1.5)])
    made.result(30)
    assert calls == [4] * 6
    assert engine.counts == (6, 6 * rows)


@pytest.mark.parametrize("kind", ["pathdiff", "siamese-diffusion"])
def test_hint_and_text_are_worked_out_once_a_sample_whatever_the_steps(engine: Engine, kind: str) -> None:
    system = tiny_system(kind)
    runs: list[int] = []
    system.hint.register_forward_hook(lambda module, given, out: runs.append(len(out)))
    guidance_inputs = system.guidance_inputs(ConditionRequest(prompt="many nuclei", mask=a_mask()))
    assert system._tokens.asked == ["many nuclei", ""]
    [made] = engine.submit(EngineModel(system, 4), [SampleRequest(1, guidance_inputs, 20, 3.0)])
    made.result(30)
    assert runs == [1]
    assert len(system._tokens.asked) == 2


def test_siamese_guidance_leaves_the_text_out_and_keeps_the_mask() -> None:
    system = tiny_system("siamese-diffusion")
    guided = system.guidance_inputs(ConditionRequest(prompt="a polyp", mask=a_mask()))
    assert torch.equal(guided.cond["hint"], guided.uncond["hint"])
    assert not torch.equal(guided.cond["text"], guided.uncond["text"])
    assert not guided.uncond["text"].any()
    silent = system.guidance_inputs(ConditionRequest(mask=a_mask()))
    assert silent.cond is silent.uncond
    assert torch.equal(silent.cond["hint"], guided.cond["hint"])
    assert not torch.equal(silent.cond["hint"], system.guidance_inputs(ConditionRequest(mask=a_mask(1))).cond["hint"])


def test_requests_that_do_not_fit_are_refused_with_what_is_wrong() -> None:
    siamese, pathdiff = tiny_system("siamese-diffusion"), tiny_system("pathdiff")
    with pytest.raises(ValueError, match="makes images for masks"):
        siamese.guidance_inputs(ConditionRequest(prompt="a polyp"))
    with pytest.raises(ValueError, match=r"the mask is 16 x 16 px; tiny-pathdiff@1.0.0 takes 32 x 32"):
        pathdiff.guidance_inputs(ConditionRequest(mask=MaskInput.of(np.zeros((16, 16), dtype=np.uint8))))
    with pytest.raises(ValueError, match=r"holds index 2; .* has classes 0 to 1"):
        pathdiff.guidance_inputs(ConditionRequest(mask=MaskInput.of(np.full((SIZE_PX, SIZE_PX), 2, dtype=np.uint8))))
    with pytest.raises(ValueError, match="uint8"):
        MaskInput.of(np.zeros((4, 4)))
    with pytest.raises(ValueError, match="classes are a condition by themselves"):
        ConditionRequest(classes=("nucleus",), prompt="nuclei")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_samples_bits_do_not_depend_on_its_company(engine: Engine, dtype: torch.dtype) -> None:
    system = tiny_system("pathdiff", dtype=dtype)
    model = EngineModel(system, 4)
    asked = [
        ConditionRequest(mask=a_mask(1)),
        ConditionRequest(prompt="few nuclei"),
        ConditionRequest(prompt="many nuclei", mask=a_mask(2), guidance_target="joint"),
    ]
    requests = [
        SampleRequest(seed, system.guidance_inputs(asked[seed % 3]), 3 + seed % 4, [1.0, 1.5, 4.0][seed % 3])
        for seed in range(9)
    ]
    alone = [engine.submit(model, [request])[0].result(30) for request in requests]
    together = [future.result(60) for future in engine.submit(model, requests)]
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_decoding_gives_the_image_alone_at_the_cards_size() -> None:
    system = tiny_system("siamese-diffusion")
    [twin] = system.decode(torch.randn(1, *system.sample_shape, generator=torch.Generator().manual_seed(0)), SIZE_PX)
    assert twin.image.shape == (SIZE_PX, SIZE_PX, 3)
    assert twin.image.dtype == np.uint8
    assert twin.mask is None
    with pytest.raises(ValueError, match="makes sizes"):
        system.decode(torch.zeros(1, *system.sample_shape), 64)
    assert latent_card("pathdiff").id == "tiny-pathdiff@1.0.0"
