"""Settings of a super-resolution run, by preset, and where they differ from the paper."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from model_store.cosimgen.superres import ESPCNConfig, paper_espcn, small_espcn
from model_store.features import FALLBACK
from workers.data.fit import Fit


class SuperresTraining(BaseModel):
    """The settings of a run, stored in the checkpoint and beside the result."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: Literal["paper", "small"]
    base_px: int = Field(128, ge=8, description="the generator's size; pairs are enlarged from here")
    times: int = Field(2, ge=1, le=4, description="how often the size is doubled; each doubling is a scale to train at")
    iterations: int = Field(ge=1)
    batch_size: int = Field(16, ge=1, description="patches an iteration, over all processes")
    patch_px: int = Field(32, ge=8, description="side of a low-resolution patch")
    learning_rate: float = Field(1e-3, gt=0)
    warmup: int = Field(100, ge=0, description="iterations of linear warm-up")
    decay_from: float = Field(0.5, ge=0, le=1, description="share of the run after which the rate falls linearly to 0")
    ema_decay: float = Field(0.999, ge=0, lt=1)
    clip_norm: float = Field(1.0, gt=0, description="largest norm of the gradient")
    noise: float = Field(
        0.06, ge=0, description="largest sigma of the noise on the low-resolution pair, whose range is [-1, 1]"
    )
    blur_px: float = Field(
        0.0, ge=0, description="largest sigma of the blur before that noise, in its pixels; the paper has none"
    )
    chained: float = Field(
        0.0,
        ge=0,
        le=1,
        description="how often a higher scale starts from the network's own enlargement; the paper's 0 starts from "
        "real pairs",
    )
    features: str = Field(FALLBACK, description="name of the feature network of the perceptual loss")
    perceptual_weight: float = Field(0.05, ge=0, description="lambda of eq. 9; ours, the paper gives no value")
    seed: int = 0
    fit: Fit = Field(default_factory=Fit, description="how images become squares")
    network: ESPCNConfig

    @property
    def sizes(self) -> tuple[int, ...]:
        """The generator's size and every size that it is enlarged to."""
        return tuple(self.base_px * 2**i for i in range(self.times + 1))

    @property
    def deviations(self) -> tuple[str, ...]:
        """Where this training differs from the paper, or settles what it leaves open, as sentences for the card."""
        paper, found = paper_espcn(), []
        if self.network != paper:
            found.append(
                f"Super-resolution by a deeper ESPCN ({self.network.residual_blocks} residual blocks, skip: "
                f"{self.network.skip})."
            )
        if self.network.keeps_means:
            found.append(
                "An enlarged image keeps the means of the small one: averaged, it is the generated image again."
            )
        if self.blur_px:
            found.append(
                f"Super-resolution is trained on blurred pairs too (sigma up to {self.blur_px} px), not on noisy ones "
                "alone."
            )
        if self.chained:
            found.append(f"A second enlargement is trained on the first one's output too (share {self.chained}).")
        if not self.perceptual_weight:
            found.append("Super-resolution is trained by MSE alone, without a perceptual loss.")
        elif self.features == "vgg16-level6":
            found.append(
                f"Lambda of the perceptual loss is {self.perceptual_weight}; VGG level 6 is read as the ReLU of "
                "conv2_1."
            )
        else:
            found.append(
                f"The perceptual loss looks through {self.features}, not ImageNet's VGG16; lambda is "
                f"{self.perceptual_weight}."
            )
        return tuple(found)


def preset_superres(preset: str, **changes: Any) -> SuperresTraining:
    """The settings of a preset, with those ``changes`` that are not None.

    ``paper`` enlarges 128 px to 512, ``small``, for CPUs, 64 px to 256.
    """
    if preset == "paper":
        values: dict[str, Any] = {
            "preset": "paper",
            "iterations": 50_000,
            "batch_size": 24,
            "patch_px": 64,
            "network": paper_espcn(),
        }
    else:
        values = {"preset": "small", "base_px": 64, "iterations": 2_000, "network": small_espcn()}
        values |= {"blur_px": 0.6, "chained": 0.5}
    return SuperresTraining(**(values | {key: value for key, value in changes.items() if value is not None}))
