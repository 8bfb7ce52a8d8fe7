"""The options of each system. The trainers' own settings have the same names and limits; a test holds them together."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from service.trainings.options.common import CaptionedOptions, LatentOptions, ModelOptions, TrainingOptions

SystemName = Literal["cosimgen", "superres", "autoencoder", "base", "siamese-diffusion", "pathdiff"]
Paper = Literal["siamese", "pathdiff"]
FeatureNetworkName = Literal["random-conv3", "efficientnet-lite0", "hed-vgg16", "vgg16-level6"]
PAPER_PX: dict[Paper, int] = {"siamese": 384, "pathdiff": 256}
SMALL_PX = 128


class CoSimGenOptions(TrainingOptions, ModelOptions):
    """The options of CoSimGen: image and mask together, from classes or a prompt."""

    preset: Literal["toy", "small", "paper"] = Field(  # type: ignore[assignment]
        "small", description="toy: 32 px, a first try in a minute; small: 64 px, for CPUs; paper: 128 px, for GPUs"
    )
    batch_size: int | None = Field(None, ge=2, le=65_536, description="pairs an iteration, over all processes")
    class_rate: float | None = Field(
        None, gt=0, description="learning rate of the class encoder, as a share of the rest's"
    )
    map_rate: float | None = Field(
        None, gt=0, description="learning rate of Spectron's class maps, as a share of the rest's"
    )
    p_uncond: float | None = Field(None, ge=0, le=1, description="how often the class condition is dropped")
    adversarial_weight: float | None = Field(
        None, ge=0, description="beta of the discriminator's loss; 0 trains without it"
    )
    alignment_weight: float | None = Field(
        None, ge=0, description="weight of the text's alignment to the classes; 0 is the paper's"
    )
    alignment_iterations: int | None = Field(
        None, ge=0, description="at the end, of the text projection alone towards all class sets"
    )
    repeat_below: float | None = Field(
        None,
        ge=0,
        le=1,
        description="draw class sets rarer than this share of the images more often; 0 is the paper's",
    )
    presence_margin: float | None = Field(
        None, ge=1, description="leave out pairs with a class within this factor of 0.5 %; 1 is the paper's"
    )
    noisy_share: float | None = Field(
        None, gt=0, lt=1, description="share of timesteps from the noisiest fifth; 0.2 is the paper's"
    )
    eta: float = Field(0.0, ge=0, le=1, description="the card's default: noise added at each step of sampling")


class SuperresOptions(TrainingOptions):
    """The options of CoSimGen's super-resolution."""

    base_px: int | None = Field(None, ge=8, le=4096, description="the generator's size; else the preset's")
    times: int | None = Field(None, ge=1, le=4, description="how often the size doubles; else 2")
    patch_px: int | None = Field(None, ge=8, le=4096, description="side of a low-resolution patch")
    noise: float | None = Field(None, ge=0, description="largest noise on the low-resolution pair (range [-1, 1])")
    blur_px: float | None = Field(None, ge=0, description="largest blur of the low-resolution pair")
    chained: float | None = Field(
        None, ge=0, le=1, description="how often the second doubling learns from the first one's output"
    )
    features: FeatureNetworkName | None = Field(
        None, description="feature network of the perceptual loss; else random-conv3"
    )
    perceptual_weight: float | None = Field(None, ge=0, description="lambda of the perceptual loss; 0 trains without")


class AutoencoderOptions(LatentOptions):
    """The options of the latent autoencoder of a base."""

    size_px: int = Field(SMALL_PX, ge=8, le=4096, description="side of the images")
    paper: Paper = Field("siamese", description="whose shape the paper preset has: f8 or f4")
    kl_weight: float | None = Field(None, ge=0, description="of a latent's KL divergence")
    features: FeatureNetworkName | None = Field(
        None, description="feature network of the perceptual loss; else random-conv3"
    )
    perceptual_weight: float | None = Field(None, ge=0, description="0 trains without the perceptual loss")


class BaseOptions(CaptionedOptions):
    """The options of a base: latent text-to-image diffusion, on which the mask systems build."""

    size_px: int | None = Field(None, ge=8, le=4096, description="side of the images; else the autoencoder's")
    paper: Paper = Field("siamese", description="whose U-Net the paper preset has")
    p_uncond: float | None = Field(None, ge=0, le=1, description="how often the caption is dropped")
    chunks: int = Field(1, ge=1, le=8, description="chunks of text that the CLIP reads; PathDiff's are 2")
    tokens: int = Field(48, ge=1, le=256, description="tokens of a text that all-MiniLM-L6-v2 gives")


class _OnBase(CaptionedOptions, ModelOptions):
    size_px: int | None = Field(
        None, ge=8, le=4096, description="side of the images; else the base's, and 384 or 256 for paper presets"
    )
    chunks: int = Field(1, ge=1, le=8, description="chunks of text that a Stable Diffusion's CLIP reads")
    p_uncond: float | None = Field(None, ge=0, le=1, description="how often the condition is dropped")


class SiameseOptions(_OnBase):
    """The options of Siamese-Diffusion: image from a mask and a prompt."""

    dhi: bool = Field(True, description="Dense Hint Input, or ControlNet's hint network")
    consistency: bool | None = Field(None, description="the noise consistency loss; else with it")
    augmentation: bool | None = Field(
        None, description="online augmentation; else with it. Without all three it is ControlNet"
    )
    consistency_weight: float | None = Field(None, ge=0, description="w_c of eq. 9")


class PathDiffOptions(_OnBase):
    """The options of PathDiff: image from a prompt, a mask, or both."""

    p_split: float | None = Field(None, ge=0, le=1, description="how often a sample comes from the text dataset")
    instances: Literal["maps", "regions", "none"] | None = Field(
        None,
        description="the objects between which the model sees edges: those of the dataset's instance maps, where it "
        "has any, or the connected regions of each class; else maps",
    )
    guidance_target: Literal["text", "mask", "joint"] = Field(
        "text", description="what guidance strengthens by default; text is the paper's"
    )


OPTIONS: dict[SystemName, type[TrainingOptions]] = {
    "cosimgen": CoSimGenOptions,
    "superres": SuperresOptions,
    "autoencoder": AutoencoderOptions,
    "base": BaseOptions,
    "siamese-diffusion": SiameseOptions,
    "pathdiff": PathDiffOptions,
}
"""The options of each system, by its name."""
