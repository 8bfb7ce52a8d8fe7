"""Reading a base: a Stable Diffusion's weights as diffusers loads them, and refusals that name what cannot be run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTokenizer

from model_store.diffusion.ddim import DDIM
from model_store.diffusion.schedule import alphas_cumprod
from model_store.latent.autoencoder import AutoencoderConfig, build_autoencoder, decode_latents, encode_moments
from model_store.latent.base import BaseInvalid, LatentBase, file_sha256
from model_store.latent.denoiser import DenoiserConfig, build_unet, denoise
from model_store.latent.loading import load_autoencoder, load_base
from model_store.text import TextEncoderMissing
from tests.model_store.latent.tiny import AUTOENCODER, DENOISER, LetterTokens
from tests.model_store.latent.tiny_stable_diffusion import write_tiny_stable_diffusion

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_stable_diffusion(tmp_path_factory.mktemp("base") / "tiny-sd")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "tiny-sd"))


@pytest.fixture(scope="module")
def base(original: Path) -> LatentBase:
    return load_base(original)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def test_its_shapes_are_read_into_our_configs(base: LatentBase) -> None:
    assert base.denoiser_config == DenoiserConfig(
        latent_px=8,
        widths=(8, 8, 16, 16),
        text_at=(True, True, True, False),
        heads=(4, 4, 4, 4),
        text_dims=8,
        norm_groups=4,
    )
    assert base.denoiser_config.residuals == 13
    assert base.autoencoder_config == AutoencoderConfig(widths=(4, 4, 8, 8), norm_groups=4, scaling_factor=0.18215)
    assert (base.size_px, base.autoencoder_config.factor, base.about["kind"], base.about["scheduler"]) == (
        64,
        8,
        "stable-diffusion",
        "PNDMScheduler",
    )
    assert set(base.about["files"]) == {f"{part}/diffusion_pytorch_model.safetensors" for part in ("unet", "vae")}


def test_the_networks_are_diffusers_own_to_the_bit(original: Path, base: LatentBase) -> None:
    unet = UNet2DConditionModel.from_pretrained(original / "unet").eval()
    vae = AutoencoderKL.from_pretrained(original / "vae").eval()
    z, t, text = noise(2, 4, 8, 8), torch.tensor([7, 900]), noise(2, 12, 8)
    with torch.no_grad():
        assert torch.equal(denoise(base.unet.eval(), z, t, text), unet(z, t, encoder_hidden_states=text).sample)
        images = noise(1, 3, 64, 64).clamp(-1, 1)
        mean, std = encode_moments(base.autoencoder.eval(), images)
        posterior = vae.encode(images).latent_dist
        assert torch.equal(mean, posterior.mean * 0.18215)
        assert torch.equal(std, posterior.std * 0.18215)
        assert torch.equal(decode_latents(base.autoencoder, mean), vae.decode(mean / 0.18215).sample)


def test_the_text_is_what_its_pipeline_gives_the_unet(original: Path, base: LatentBase) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(original / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(original / "text_encoder").eval()
    for prompt in ("", "a polyp in the cell", "a very long line of words that no window of twelve tokens holds"):
        ids = tokenizer(
            prompt, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
        ).input_ids
        with torch.no_grad():
            assert torch.equal(base.tokens.encode(prompt), encoder(ids)[0][0])
    assert (base.tokens.ref.max_tokens, base.tokens.ref.dims) == (12, 8)
    assert len(tokenizer("polyp").input_ids) == 3  # its merges make one token of it


def test_the_schedule_is_the_one_ddim_gets_from_the_same_folder(original: Path, base: LatentBase) -> None:
    theirs = DDIMScheduler.from_pretrained(original / "scheduler", clip_sample=False)
    assert torch.equal(alphas_cumprod(base.convention), theirs.alphas_cumprod)
    theirs.set_timesteps(50)
    assert torch.equal(DDIM(base.convention).timesteps(50), theirs.timesteps)
    assert base.convention.prediction_type == "epsilon"
    assert not base.convention.clip_sample
    assert not base.convention.set_alpha_to_one


def test_other_sizes_are_taken_where_the_unet_can_halve_them(original: Path, base: LatentBase) -> None:
    larger = load_base(original, latent_px=48)
    assert (larger.size_px, larger.denoiser_config.latent_px) == (384, 48)
    assert larger.fingerprint == base.fingerprint
    assert base.at_size(384).denoiser_config == larger.denoiser_config
    with pytest.raises(
        BaseInvalid,
        match=r"a latent of 12 px \(96 px of image\) cannot be halved 3 times; take a multiple of 8 \(64 px",
    ):
        load_base(original, latent_px=12)
    with pytest.raises(
        BaseInvalid, match="images of 100 px have no latent: the autoencoder makes them 8 times smaller"
    ):
        base.at_size(100)


def test_two_windows_of_text_are_another_base(original: Path, base: LatentBase) -> None:
    twice = load_base(original, chunks=2)
    assert (twice.tokens.ref.max_tokens, twice.tokens.ref.chunks) == (24, 2)
    assert twice.fingerprint != base.fingerprint


def test_the_autoencoder_can_be_taken_alone(original: Path, base: LatentBase) -> None:
    network, config, about = load_autoencoder(original)
    assert config == base.autoencoder_config
    assert about["name"] == "tiny-sd"
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), base.autoencoder.parameters(), strict=True))


def test_the_attention_names_of_its_first_release_are_known(folder: Path, base: LatentBase) -> None:
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    for old, new in (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")):
        tensors = {name.replace(f".{new}.", f".{old}."): value for name, value in tensors.items()}
    assert any(".proj_attn." in name for name in tensors)
    save_file(tensors, path, metadata={"format": "pt"})
    network, _, _ = load_autoencoder(folder)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), base.autoencoder.parameters(), strict=True))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def pickled(folder: Path) -> None:
    (folder / "unet" / "diffusion_pytorch_model.safetensors").rename(folder / "unet" / "diffusion_pytorch_model.bin")


def lacking(folder: Path) -> None:
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors.pop("conv_in.weight")
    save_file(tensors, path, metadata={"format": "pt"})


REFUSED: list[tuple[Callable[[Path], Any], str]] = [
    (
        lambda f: shutil.rmtree(f / "vae"),
        "vae does not exist; a base has unet, vae, text_encoder, tokenizer and scheduler",
    ),
    (lambda f: (f / "unet" / "config.json").unlink(), "unet/config.json does not exist"),
    (lambda f: (f / "scheduler" / "scheduler_config.json").unlink(), "scheduler/scheduler_config.json does not exist"),
    (
        pickled,
        r"unet has no diffusion_pytorch_model.safetensors \(there is diffusion_pytorch_model.bin\); weights are read "
        r"from safetensors only",
    ),
    (lacking, r"unet does not hold the weights of its own config.json: missing_keys \['conv_in.weight'\]"),
    (
        lambda f: edit(f / "model_index.json", _class_name="StableDiffusionXLPipeline"),
        "is a StableDiffusionXLPipeline; this version reads",
    ),
    (
        lambda f: edit(f / "model_index.json", vae=["diffusers", "AutoencoderTiny"]),
        "vae is a AutoencoderTiny; this version reads AutoencoderKL",
    ),
    (lambda f: edit(f / "model_index.json", unet=None), "lists no unet; a base has"),
    (
        lambda f: edit(f / "unet" / "config.json", use_linear_projection=True),
        "use_linear_projection is True; this version can only run False",
    ),
    (lambda f: edit(f / "unet" / "config.json", addition_embed_type="text_time"), "addition_embed_type is 'text_time'"),
    (lambda f: edit(f / "unet" / "config.json", out_channels=8), "out_channels is 8; this version can only run 4"),
    (lambda f: edit(f / "unet" / "config.json", layers_per_block=[2, 2, 2, 2]), r"layers_per_block is \[2, 2, 2, 2\]"),
    (
        lambda f: edit(f / "unet" / "config.json", down_block_types=["AttnDownBlock2D"] * 4),
        "down_block_types is .*AttnDownBlock2D",
    ),
    (
        lambda f: edit(f / "unet" / "config.json", a_new_field=3),
        "a_new_field is 3, a field that this version does not know",
    ),
    (
        lambda f: edit(f / "unet" / "config.json", cross_attention_dim=16),
        "unet does not hold the weights of its own config.json: .*shape",
    ),
    (
        lambda f: edit(f / "vae" / "config.json", shift_factor=0.1),
        "shift_factor is 0.1; this version can only run None",
    ),
    (lambda f: edit(f / "vae" / "config.json", in_channels=1), "in_channels is 1"),
    (
        lambda f: edit(f / "scheduler" / "scheduler_config.json", prediction_type="sample"),
        "prediction_type is 'sample'",
    ),
    (lambda f: edit(f / "scheduler" / "scheduler_config.json", beta_schedule="sigmoid"), "schedule is 'sigmoid'"),
    (
        lambda f: edit(f / "scheduler" / "scheduler_config.json", rescale_betas_zero_snr=True),
        "rescale_betas_zero_snr is True",
    ),
    (lambda f: edit(f / "scheduler" / "scheduler_config.json", trained_betas=[0.1]), r"trained_betas is \[0.1\]"),
    (lambda f: (f / "scheduler" / "scheduler_config.json").write_text("{}"), "has no beta_schedule"),
    (lambda f: (f / "model_index.json").unlink(), "holds neither base.json .* nor model_index.json"),
    (lambda f: (f / "unet" / "config.json").write_text("{"), "config.json is not JSON"),
]


@pytest.mark.parametrize(("breaking", "message"), REFUSED, ids=[message[:40] for _, message in REFUSED])
def test_what_cannot_be_run_is_refused_by_name(folder: Path, breaking: Callable[[Path], Any], message: str) -> None:
    breaking(folder)
    with pytest.raises(BaseInvalid, match=message):
        load_base(folder)


def test_a_text_encoder_without_safetensors_is_missing(folder: Path) -> None:
    (folder / "text_encoder" / "model.safetensors").rename(folder / "text_encoder" / "pytorch_model.bin")
    with pytest.raises(TextEncoderMissing, match="is read from safetensors"):
        load_base(folder)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder as ``twinset train base`` writes it."""
    parts = {"autoencoder": build_autoencoder(AUTOENCODER), "unet": build_unet(DENOISER)}
    tensors = {
        f"{part}.{name}": value.contiguous()
        for part, module in parts.items()
        for name, value in module.state_dict().items()
    }
    save_file(tensors, tmp_path / "base.safetensors")
    about = {
        "format": 1,
        "autoencoder": AUTOENCODER.model_dump(mode="json"),
        "denoiser": DENOISER.model_dump(mode="json"),
        "sampler": {"schedule": "scaled_linear", "prediction_type": "v_prediction", "clip_sample": False},
        "text_encoder": LetterTokens.ref.model_dump(mode="json"),
        "files": {"base.safetensors": file_sha256(tmp_path / "base.safetensors")},
    }
    (tmp_path / "base.json").write_text(json.dumps(about))
    return tmp_path


def test_our_own_base_is_read_back(own: Path) -> None:
    base = load_base(own, tokens=LetterTokens())
    tensors = load_file(own / "base.safetensors")
    assert all(torch.equal(value, tensors[f"unet.{name}"]) for name, value in base.unet.state_dict().items())
    assert all(
        torch.equal(value, tensors[f"autoencoder.{name}"]) for name, value in base.autoencoder.state_dict().items()
    )
    assert (base.denoiser_config, base.size_px, base.convention.prediction_type) == (DENOISER, 32, "v_prediction")


@pytest.mark.parametrize(
    ("breaking", "message"),
    [
        (lambda f: (f / "base.safetensors").unlink(), "base.safetensors does not exist"),
        (
            lambda f: edit(f / "base.json", files={"base.safetensors": "0" * 64}),
            "has sha256 .*; its description says 000",
        ),
        (lambda f: (f / "base.json").write_text("[]"), "is of format None; this version of twinset reads format 1"),
        (lambda f: edit(f / "base.json", format=2), "is of format 2; this version of twinset reads format 1"),
        (
            lambda f: edit(f / "base.json", denoiser={**DENOISER.model_dump(mode="json"), "heads": "few"}),
            "denoiser.heads is 'few'",
        ),
        (
            lambda f: edit(f / "base.json", denoiser={**DENOISER.model_dump(mode="json"), "widths": (8, 8)}),
            "does not fit the network",
        ),
    ],
)
def test_a_broken_base_of_ours_is_refused(own: Path, breaking: Callable[[Path], Any], message: str) -> None:
    breaking(own)
    with pytest.raises(BaseInvalid, match=message):
        load_base(own, tokens=LetterTokens())


def test_text_of_another_width_than_the_unet_reads_is_refused(own: Path) -> None:
    class Wide(LetterTokens):
        ref = LetterTokens.ref.model_copy(update={"dims": 9})

    with pytest.raises(BaseInvalid, match="reads text of 8 dimensions, but its text encoder gives 9"):
        load_base(own, tokens=Wide())
