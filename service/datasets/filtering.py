"""Twins that the model itself was not sure of, left out."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from service.datasets.items import DatasetItem


class ConfidenceFilter(BaseModel):
    """Bounds on what a twin's ``metadata["scores"]`` say; real items pass, whatever they carry."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_confident_share: float | None = Field(
        None, ge=0, le=1, description="of the mask's pixels, those that the model was sure of"
    )
    min_mean_confidence: float | None = Field(None, ge=0, le=1, description="mean over the mask's pixels")

    def fault(self, item: DatasetItem) -> tuple[str, str] | None:
        """Why the item does not pass, as a reason of ``writing.left_out`` and a sentence; None if it does."""
        if item.source != "synthetic":
            return None
        scores = item.metadata.get("scores")
        for name, least in (
            ("confident_share", self.min_confident_share),
            ("mean_confidence", self.min_mean_confidence),
        ):
            if least is None:
                continue
            found = scores.get(name) if isinstance(scores, dict) else None
            if not isinstance(found, (int, float)):
                return "no_scores", f"it has no {name}, and at least {least:g} was asked for"
            if not found >= least:
                return "low_confidence", f"its {name} is {found:.4g}, and at least {least:g} was asked for"
        return None
