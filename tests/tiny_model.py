"""A tiny model folder: a complete CoSimGen with untrained weights, 16 px, super-resolved to 32."""

from __future__ import annotations

import hashlib
from pathlib import Path

from model_store.card import (
    ClassEntry,
    Defaults,
    ModelCard,
    PaletteRef,
    SamplerConvention,
    TextEncoderRef,
    WeightsFile,
)

CLASSES = (("land", (200, 40, 40)), ("water", (40, 60, 220)), ("road", (60, 220, 80)))


def write_tiny_model(
    folder: Path, *, name: str = "tiny", version: str = "1.0.0", seed: int = 7, zeros: bool = True
) -> ModelCard:
    """Writes ``card.json`` and ``model.safetensors``, and returns the card.

    Layers that begin with zeros make the network's output zero, the same in every number format; with ``zeros=False``
    they are drawn too.
    """
    # torch takes seconds to import, and most tests of the service packages import this module without using it.
    import torch
    from safetensors.torch import save_file

    from model_store.cosimgen.config import CoSimGenConfig
    from model_store.cosimgen.network import CoSimGenNetwork
    from model_store.cosimgen.superres import ESPCN, ESPCNConfig
    from model_store.cosimgen.system import GENERATOR_PREFIX, SUPERRES_PREFIX, WEIGHTS_FILE

    generator = CoSimGenConfig(
        num_classes=len(CLASSES),
        size_px=16,
        width=16,
        multipliers=(1, 2),
        blocks_per_level=1,
        embedding_dims=32,
        class_feature_dims=16,
    )
    superres = ESPCNConfig(layers=((3, 8),), activation="relu", skip="bilinear")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        networks = {GENERATOR_PREFIX: CoSimGenNetwork(generator), SUPERRES_PREFIX: ESPCN(superres)}
        for parameter in networks[GENERATOR_PREFIX].parameters():
            if not zeros and not parameter.any():
                torch.nn.init.normal_(parameter.data, std=0.1)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        prefix + key: value.contiguous() for prefix, net in networks.items() for key, value in net.state_dict().items()
    }
    save_file(tensors, folder / WEIGHTS_FILE)
    data = (folder / WEIGHTS_FILE).read_bytes()
    card = ModelCard(
        name=name,
        version=version,
        system="cosimgen",
        title="Tiny, for tests",
        description="Untrained: its images are noise, generated in the same way as any other model's.",
        inputs=("prompt", "classes"),
        classes=tuple(ClassEntry(index=i, name=word, colour=colour) for i, (word, colour) in enumerate(CLASSES)),
        palette=PaletteRef(count=len(CLASSES)),
        generation_size_px=16,
        sizes_px=(16, 32),
        default_size_px=32,
        sampler=SamplerConvention(prediction_type="v_prediction"),
        defaults=Defaults(steps=4, guidance_scale=2.0, eta=0.0),
        network={
            "generator": generator.model_dump(mode="json"),
            "superres": superres.model_dump(mode="json"),
        },
        text_encoder=TextEncoderRef(name="sentence-transformers/all-MiniLM-L6-v2", dims=384, max_tokens=256),
        intended_use="tests",
        limits_of_use="anything else",
        licence="Apache-2.0",
        files={WEIGHTS_FILE: WeightsFile(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))},
    )
    (folder / "card.json").write_text(card.model_dump_json(indent=2))
    return card
