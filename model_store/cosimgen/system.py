"""CoSimGen as a :class:`model_store.interface.System`, which the sampling engine runs."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from model_store.canvas.windows import Windows
from model_store.card import ModelCard
from model_store.cosimgen.config import CoSimGenConfig
from model_store.cosimgen.network import CoSimGenNetwork
from model_store.cosimgen.superres import ESPCN, ESPCNConfig, upscale
from model_store.interface import (
    Condition,
    ConditionRequest,
    GuidanceInputs,
    WeightsInvalid,
)
from model_store.masks.decode import Twin, decode_pairs
from model_store.text import load_text_encoder
from model_store.weights import load_network, to_channels_last

GENERATOR_PREFIX, SUPERRES_PREFIX = "generator.", "superres."
WEIGHTS_FILE = "model.safetensors"


class CoSimGenSystem:
    """A CoSimGen generator with its super-resolution, on one device.

    The U-Net runs in ``dtype``; the encoders, which cost almost nothing, stay float32. Conditions are computed and
    twins decoded one by one, so that no sample's bits depend on the other samples of its batch.
    """

    def __init__(
        self,
        card: ModelCard,
        network: CoSimGenNetwork,
        superres: ESPCN | None,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.card, self.device, self.dtype = card, device, dtype
        self.sample_shape = network.config.sample_shape
        self.network = network.to(device).eval().requires_grad_(False)
        to_channels_last(self.network.unet, dtype=dtype)
        self.superres = superres.to(device).eval().requires_grad_(False) if superres is not None else None
        self.condition_shapes = {"class": (network.config.embedding_dims,)}
        self._colours = torch.tensor([entry.colour for entry in card.classes], device=device) / 127.5 - 1.0

    @classmethod
    def load(cls, folder: Path, card: ModelCard, device: torch.device, dtype: torch.dtype) -> CoSimGenSystem:
        """Builds the networks that the card describes and fills them from ``model.safetensors``."""
        generator = CoSimGenConfig.model_validate(card.network["generator"])
        path = folder / WEIGHTS_FILE
        try:
            network = load_network(
                lambda: CoSimGenNetwork(generator),
                path,
                GENERATOR_PREFIX,
                device=device,
                dtype=lambda name: dtype if name.startswith("unet.") else torch.float32,
            )
            superres = None
            if "superres" in card.network:
                config = ESPCNConfig.model_validate(card.network["superres"])
                superres = load_network(lambda: ESPCN(config), path, SUPERRES_PREFIX, device=device)
        except RuntimeError as error:
            raise WeightsInvalid(f"{path} does not fit the network of {card.id}: {error}") from None
        return cls(card, network, superres, device, dtype)

    def guidance_inputs(self, request: ConditionRequest) -> GuidanceInputs:
        """C_emb for classes, or Z_emb for a prompt, against the class encoder's embedding of M = 0."""
        with torch.no_grad():
            null = self.network.class_encoder(torch.zeros(1, len(self.card.classes), device=self.device))
            return GuidanceInputs({"class": self._condition_one(request)[0]}, {"class": null[0]})

    def _condition_one(self, request: ConditionRequest) -> Tensor:
        if request.mask is not None:
            raise ValueError(f"{self.card.id} makes its masks itself and takes none")
        if request.prompt is not None:
            if self.card.text_encoder is None:
                raise ValueError(
                    f"the card of {self.card.id} names no text encoder, so it takes no prompts; give classes"
                )
            sentence = load_text_encoder(self.card.text_encoder).encode([request.prompt])
            embedding: Tensor = self.network.text_encoder(sentence.to(self.device))
            return embedding
        multi_hot = torch.zeros(1, len(self.card.classes), device=self.device)
        for word in request.classes or ():
            entry = self.card.find_class(word)
            if entry is None or not entry.queryable:
                raise ValueError(f"{word!r} is no class of {self.card.id}; it has {', '.join(self.card.queryable)}")
            multi_hot[0, entry.index] = 1.0
        class_embedding: Tensor = self.network.class_encoder(multi_hot)
        return class_embedding

    def forward(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """The network's raw output (noise or velocity, by the card) in float32, ``(B, 6, h, w)``."""
        with torch.no_grad():
            times = self.network.timestep_encoder(t)
            x = x.to(dtype=self.dtype, memory_format=torch.channels_last)
            output: Tensor = self.network.unet(x, condition["class"].to(self.dtype), times.to(self.dtype))
            return output.float()

    def decode(self, x0: Tensor, size_px: int, windows: Windows | None = None) -> list[Twin]:
        """Super-resolves and decodes each pair on its own. Raises ValueError for a size that the card does not list.

        A canvas is one pair: the super-resolution is of convolutions alone, and knows no side.
        """
        if size_px not in self.card.sizes_px:
            raise ValueError(f"{self.card.id} makes sizes {list(self.card.sizes_px)}, not {size_px}")
        times = (size_px // self.card.generation_size_px).bit_length() - 1
        if times and self.superres is None:
            raise ValueError(f"{self.card.id} lists {size_px} px, but its folder holds no super-resolution")
        twins: list[Twin] = []
        with torch.no_grad():
            for low in x0.float().clamp(-1.0, 1.0).chunk(len(x0)):
                high = low if self.superres is None else upscale(self.superres, low, times)
                twins += decode_pairs(high, low, self._colours, self.card.confidence_threshold)
        return twins
