"""The confidence filter: twins are skipped if the model's confidence in their mask is too low."""

from __future__ import annotations

from pydantic import Field

from service.datasets.items import DatasetItem
from service.kit.frozen import _Frozen


class ConfidenceFilter(_Frozen):
    """Lower bounds on a twin's ``metadata["scores"]``; real items always pass."""

    min_confident_share: float | None = Field(
        None, ge=0, le=1, description="share of the mask's pixels of which the model was sure"
    )
    min_mean_confidence: float | None = Field(None, ge=0, le=1, description="mean over the mask's pixels")

    def fault(self, item: DatasetItem) -> tuple[str, str] | None:
        """The reason to skip the item, one of ``writing.skipped``'s, and a sentence; None if the item passes."""
        if item.source != "synthetic":
            return None
        scores = item.metadata.get("scores")
        for name, minimum in (
            ("confident_share", self.min_confident_share),
            ("mean_confidence", self.min_mean_confidence),
        ):
            if minimum is None:
                continue
            found = scores.get(name) if isinstance(scores, dict) else None
            if not isinstance(found, (int, float)):
                return "no_scores", f"it has no {name}; the minimum is {minimum:g}"
            if not found >= minimum:
                return "low_confidence", f"its {name} is {found:.4g}; the minimum is {minimum:g}"
        return None
