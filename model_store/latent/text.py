"""Text as tokens: cross-attention reads the hidden state of every token.

Two encoders: ``all-MiniLM-L6-v2``, which every installation has, and a CLIP text encoder from a folder in diffusers'
layout (``tokenizer/``, ``text_encoder/``), as Stable Diffusion's and PLIP's. Their weights are not part of a model
folder; a card that needs a CLIP names it by the sha256 of its weights, and ``TWINSET_CLIP_DIR`` names its folder.
"""

from __future__ import annotations

import hashlib
import os
import threading
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from model_store.card import TextEncoderRef
from model_store.text import ALL_MINILM, TextEncoderMissing, hide_loading_bar, load_text_encoder

CLIP_NAME = "clip-text"
_MAX_CACHED_TEXTS = 1024


class TokenEncoder(Protocol):
    """Texts -> hidden states of a fixed number of tokens."""

    ref: TextEncoderRef

    def encode(self, text: str) -> Tensor:
        """``(tokens, dims)`` float32 on the CPU; "" is the null text."""


class MiniLMTokens:
    """Last hidden states of all-MiniLM-L6-v2, cut or filled with zeros to ``tokens``."""

    def __init__(self, tokens: int = 48) -> None:
        self.ref = ALL_MINILM.model_copy(update={"max_tokens": tokens})
        self._sentences = load_text_encoder()
        self._cached = lru_cache(_MAX_CACHED_TEXTS)(self._encode)

    def encode(self, text: str) -> Tensor:
        return self._cached(text)

    def _encode(self, text: str) -> Tensor:
        hidden = self._sentences.hidden_states(text, self.ref.max_tokens)
        states = torch.zeros(self.ref.max_tokens, self.ref.dims)
        states[: len(hidden)] = hidden
        return states


class ClipTokens:
    """Last hidden states of a CLIP text encoder, padded as in CLIP's training (with its end token).

    ``chunks`` chunks of the tokenizer's length (77) follow one another, each with its own start and end: PathDiff reads
    two, 154 tokens.
    """

    def __init__(self, folder: Path, *, chunks: int = 1) -> None:
        from transformers import CLIPTextModel, CLIPTokenizer

        hide_loading_bar()
        self._tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        self._model = CLIPTextModel.from_pretrained(
            folder / "text_encoder", local_files_only=True, use_safetensors=True, dtype=torch.float32
        ).train(False)
        self._chunk_tokens = min(self._tokenizer.model_max_length, self._model.config.max_position_embeddings)
        self.ref = TextEncoderRef(
            name=CLIP_NAME,
            dims=self._model.config.hidden_size,
            max_tokens=self._chunk_tokens * chunks,
            chunks=chunks,
            weights_sha256=clip_fingerprint(folder),
        )
        self._lock = threading.Lock()
        self._cached = lru_cache(_MAX_CACHED_TEXTS)(self._encode)

    def encode(self, text: str) -> Tensor:
        return self._cached(text)

    def _encode(self, text: str) -> Tensor:
        inner = self._chunk_tokens - 2
        ids = self._tokenizer(text, add_special_tokens=False)["input_ids"][: inner * self.ref.chunks]
        first, last = self._tokenizer.bos_token_id, self._tokenizer.eos_token_id
        fill = self._tokenizer.pad_token_id if self._tokenizer.pad_token_id is not None else last
        rows = []
        for chunk in range(self.ref.chunks):
            part = ids[chunk * inner : (chunk + 1) * inner]
            rows.append([first, *part, last, *[fill] * (inner - len(part))])
        with self._lock, torch.inference_mode(False), torch.no_grad():
            hidden: Tensor = self._model(torch.tensor(rows)).last_hidden_state
        return hidden.reshape(self.ref.max_tokens, self.ref.dims)


def clip_fingerprint(folder: Path) -> str:
    """The sha256 of the folder's text encoder weights. Raises :class:`TextEncoderMissing` if it has no safetensors."""
    path = folder / "text_encoder" / "model.safetensors"
    if not path.is_file():
        raise TextEncoderMissing(
            f"{path} does not exist; a CLIP text encoder is read from safetensors in diffusers' layout"
        )
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@lru_cache(4)
def load_token_encoder(ref: TextEncoderRef) -> TokenEncoder:
    """The process's token encoder for a card. Raises :class:`TextEncoderMissing` if its weights are missing."""
    if ref.name == ALL_MINILM.name:
        return MiniLMTokens(ref.max_tokens)
    if ref.name != CLIP_NAME:
        raise TextEncoderMissing(
            f"the card asks for text encoder {ref.name!r}; this version knows {ALL_MINILM.name!r} and {CLIP_NAME!r}"
        )
    named = os.environ.get("TWINSET_CLIP_DIR")
    if not named:
        raise TextEncoderMissing(
            "the model reads its text through a CLIP text encoder that is not part of it; set TWINSET_CLIP_DIR to the "
            "folder of the "
            "Stable Diffusion (or PLIP) model it was trained from, with tokenizer/ and text_encoder/"
        )
    encoder = ClipTokens(Path(named), chunks=ref.chunks)
    if encoder.ref != ref:
        raise TextEncoderMissing(
            f"TWINSET_CLIP_DIR is {named!r}, whose text encoder is {encoder.ref}; the card asks for {ref}"
        )
    return encoder
