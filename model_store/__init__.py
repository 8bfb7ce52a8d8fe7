"""What a model is: the systems, their cards, versions and weights.

Importing this package, or :mod:`model_store.card`, loads neither torch nor numpy, so that the API process stays light.
"""

from __future__ import annotations

from pathlib import Path


def bundled_folder() -> Path:
    """The folder of the models that travel with the package, laid out as ``{name}/{version}/card.json``."""
    return Path(__file__).parent / "bundled"
