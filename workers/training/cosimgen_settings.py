"""Settings of a CoSimGen training, and its two presets: the paper's and the small one for CPUs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from model_store.card import SamplerConvention
from model_store.cosimgen.config import CoSimGenConfig, paper_config, small_config, toy_config
from model_store.cosimgen.losses import ADVERSARIAL_WEIGHT
from workers.data.fit import Fit
from workers.training.loop import NOISY_FIFTH


class CoSimGenTraining(BaseModel):
    """The settings of a run, stored in the checkpoint and in the model's card."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: Literal["paper", "small", "toy"]
    iterations: int = Field(ge=1)
    batch_size: int = Field(24, ge=2, description="pairs an iteration, over all processes")
    learning_rate: float = Field(2e-4, gt=0)
    class_rate: float = Field(1.0, gt=0, description="learning rate of the class encoder, as a share of the rest's")
    map_rate: float = Field(1.0, gt=0, description="learning rate of Spectron's class maps, as a share of the rest's")
    warmup: int = Field(0, ge=0, description="iterations of linear warm-up")
    decay_from: float = Field(1.0, ge=0, le=1, description="share of the run after which the rate falls linearly to 0")
    ema_decay: float = Field(0.999, ge=0, lt=1)
    clip_norm: float = Field(
        1.0, gt=0, description="largest norm of the gradient, of each encoder, the maps and the rest"
    )
    p_uncond: float = Field(0.1, ge=0, le=1, description="how often the class condition is dropped for the null one")
    adversarial_weight: float = Field(ADVERSARIAL_WEIGHT, ge=0, description="beta of eq. 6")
    alignment_weight: float = Field(0.0, ge=0, description="weight of |Z - sg[C]|^2, ours; 0 is the paper's")
    alignment_iterations: int = Field(
        0, ge=0, description="at the end, of the text projection alone towards all class sets; ours"
    )
    repeat_below: float = Field(
        0.0, ge=0, le=1, description="class sets rarer than this share of the images are drawn more often; ours"
    )
    presence_margin: float = Field(
        1.0,
        ge=1,
        description="pairs with a class within this factor of the least share that counts are left out; 1 leaves "
        "none; ours",
    )
    noisy_share: float = Field(
        NOISY_FIFTH, gt=0, lt=1, description="share of the timesteps from the noisiest fifth; 0.2 is uniform"
    )
    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon"
    schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"
    discriminator_width: int = 64
    seed: int = 0
    fit: Fit = Field(default_factory=Fit, description="how images become the network's square")
    network: CoSimGenConfig

    @property
    def convention(self) -> SamplerConvention:
        """The sampler convention that goes with this training."""
        return SamplerConvention(prediction_type=self.prediction_type, schedule=self.schedule)


def preset_training(preset: str, num_classes: int, **changes: Any) -> CoSimGenTraining:
    """The paper's settings, the small ones for CPUs, or toys for a first try, with ``changes`` that are not None."""
    if preset == "paper":
        values: dict[str, Any] = {
            "preset": "paper",
            "iterations": 100_000,
            "ema_decay": 0.9999,
            "network": paper_config(num_classes),
        }
    else:
        values = {
            "preset": "small",
            "iterations": 20_000,
            "batch_size": 16,
            "learning_rate": 4e-4,
            "class_rate": 0.1,
            "map_rate": 0.25,
            "warmup": 200,
            "decay_from": 0.5,
            "adversarial_weight": 0.01,
            "alignment_weight": 1.0,
            "alignment_iterations": 4000,
            "repeat_below": 0.2,
            "presence_margin": 2.0,
            "noisy_share": 0.5,
            "prediction_type": "v_prediction",
            "schedule": "squaredcos_cap_v2",
            "discriminator_width": 32,
            "network": small_config(num_classes),
        }
        if preset == "toy":
            values |= {"preset": "toy", "iterations": 300, "learning_rate": 1e-3, "warmup": 50, "ema_decay": 0.98}
            values |= {"alignment_iterations": 300, "adversarial_weight": 0.0, "network": toy_config(num_classes)}
    return CoSimGenTraining(**(values | {key: value for key, value in changes.items() if value is not None}))
