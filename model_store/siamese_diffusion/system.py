"""Siamese-Diffusion as a :class:`model_store.interface.System`: the mask branch alone, with guidance on the text."""

from __future__ import annotations

import torch
from torch import nn

from model_store.card import ModelCard
from model_store.interface import ConditionRequest, GuidanceInputs
from model_store.latent.system import LatentSystem
from model_store.siamese_diffusion.hint import DenseHintConfig, build_hint, mask_hint


class SiameseDiffusionSystem(LatentSystem):
    """A mask with an optional prompt; guidance leaves the prompt out and keeps the mask (section 4)."""

    name = "Siamese-Diffusion"

    @classmethod
    def build_hint(cls, card: ModelCard) -> nn.Module:
        return build_hint(DenseHintConfig.model_validate(card.network["hint"]))

    def guidance_inputs(self, request: ConditionRequest) -> GuidanceInputs:
        """Raises ValueError without a mask, and for one that does not fit the card."""
        if request.mask is None:
            raise ValueError(f"{self.card.id} makes images for masks, and none is given; give one")
        self.check_mask(request)
        indices = torch.from_numpy(request.mask.indices.astype("int64")).to(self.device)
        with torch.no_grad():
            hint = self.hint(mask_hint(indices[None], self.colours))[0]
        condition = {"text": self.text_tokens(request.prompt or ""), "hint": hint}
        if not request.prompt:
            return GuidanceInputs(condition, condition)
        return GuidanceInputs(condition, {"text": self.text_tokens(""), "hint": hint})
