"""The sampling engine: one forward a step over all active samples of a model, each at a timestep of its own."""

from __future__ import annotations

from workers.engine.engine import Engine, EngineStopped
from workers.engine.model import EngineModel
from workers.engine.model_batch import SampleFailed
from workers.engine.sample import SampleRequest

__all__ = ["Engine", "EngineModel", "EngineStopped", "SampleFailed", "SampleRequest"]
