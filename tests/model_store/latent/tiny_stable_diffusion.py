"""A Stable Diffusion 1.5 in miniature, in diffusers' layout: its own classes, untrained, 64 px over latents of 8."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

TOKENS, DIMS = 12, 8
MERGES = ("p o", "po l", "pol y", "poly p</w>", "a n", "i n", "t h", "th e</w>", "c e", "l l</w>", "ce ll</w>")
START, END = "<|startoftext|>", "<|endoftext|>"


def write_tiny_stable_diffusion(folder: Path, *, seed: int = 11, unet: dict[str, Any] | None = None) -> Path:
    """Writes the folder as ``StableDiffusionPipeline.save_pretrained`` does; ``unet`` changes its config."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts: dict[str, nn.Module] = {
            "unet": UNet2DConditionModel(
                **{
                    "sample_size": 8,
                    "block_out_channels": (8, 8, 16, 16),
                    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
                    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
                    "attention_head_dim": 4,
                    "cross_attention_dim": DIMS,
                    "norm_num_groups": 4,
                }
                | (unet or {})
            ),
            "vae": AutoencoderKL(
                block_out_channels=(4, 4, 8, 8),
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                layers_per_block=2,
                norm_num_groups=4,
                sample_size=64,
            ),
        }
        text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(vocabulary()),
                hidden_size=DIMS,
                intermediate_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=TOKENS,
                bos_token_id=vocabulary()[START],
                eos_token_id=vocabulary()[END],
            )
        )
    for name, module in parts.items():
        module.save_pretrained(folder / name)
    text.save_pretrained(folder / "text_encoder")
    PNDMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        set_alpha_to_one=False,
        skip_prk_steps=True,
        steps_offset=1,
    ).save_pretrained(folder / "scheduler")
    write_tokenizer(folder / "tokenizer")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.6.0",
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "safety_checker": [None, None],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def vocabulary() -> dict[str, int]:
    """CLIP's kind of vocabulary: every letter within a word and at its end, what the merges make, and the two marks."""
    letters = string.ascii_lowercase + string.digits + ".,"
    words = [
        *letters,
        *(letter + "</w>" for letter in letters),
        *(merge.replace(" ", "") for merge in MERGES),
        START,
        END,
    ]
    return {word: index for index, word in enumerate(words)}


def write_tokenizer(folder: Path) -> None:
    """``vocab.json`` and ``merges.txt``, as CLIP's tokenizer lies in Stable Diffusion's folder."""
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary()))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES]) + "\n")
    marks = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    (folder / "special_tokens_map.json").write_text(json.dumps(marks))
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": TOKENS, "do_lower_case": True, **marks}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
