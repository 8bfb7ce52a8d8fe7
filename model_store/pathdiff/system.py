"""PathDiff as a :class:`model_store.interface.System`: text, mask or both, with guidance towards text, mask or both."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor, nn

from model_store.card import ModelCard
from model_store.interface import ConditionRequest, GuidanceInputs
from model_store.latent.system import LatentSystem
from model_store.pathdiff.hint import PathDiffHintConfig, build_hint, mask_hint, null_hint


class PathDiffSystem(LatentSystem):
    """e = null + s (condition - null), where the guidance target decides what ``null`` lacks.

    text, the paper's: e(m, "") + s (e(m, t) - e(m, "")); mask and joint are ours: e(none, t) and e(none, "") as the
    null side. If the request has nothing to leave out, both sides are one, and a step is one forward.
    """

    name = "PathDiff"

    @classmethod
    def build_hint(cls, card: ModelCard) -> nn.Module:
        return build_hint(PathDiffHintConfig.model_validate(card.network["hint"]))

    def guidance_inputs(self, request: ConditionRequest) -> GuidanceInputs:
        """Raises ValueError for a mask that does not fit the card."""
        self.check_mask(request)
        target = request.guidance_target or self.card.defaults.guidance_target or "text"
        prompt, masked = request.prompt or "", request.mask is not None
        condition = {"text": self.text_tokens(prompt), "hint": self._hint(request)}
        without_text, without_mask = (
            target in ("text", "joint") and prompt != "",
            target in ("mask", "joint") and masked,
        )
        if not (without_text or without_mask):
            return GuidanceInputs(condition, condition)
        null = {
            "text": self.text_tokens("") if without_text else condition["text"],
            "hint": self._null_hint if without_mask else condition["hint"],
        }
        return GuidanceInputs(condition, null)

    def _hint(self, request: ConditionRequest) -> Tensor:
        if request.mask is None:
            return self._null_hint
        mask = request.mask
        indices = torch.from_numpy(mask.indices.astype("int64")).to(self.device)[None]
        numbered = mask.instances
        instances = None if numbered is None else torch.from_numpy(numbered.astype("int64")).to(self.device)[None]
        return self._features(mask_hint(indices, self.colours, instances))

    @cached_property
    def _null_hint(self) -> Tensor:
        """The features of the null mask: one tensor for all samples, and for all windows of a canvas."""
        return self._features(null_hint(1, self.card.generation_size_px, self.device))

    def _features(self, hint: Tensor) -> Tensor:
        with torch.no_grad():
            features: Tensor = self.hint(hint)
        return features[0]
