"""The classes of a dataset: an index in the mask, a name and a colour each; one may be the ground that objects stand
on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    import numpy as np

Source = Literal["real", "synthetic"]
"""Whether an image is a photograph, or a model drew it."""
Colour = tuple[int, int, int]
IGNORE = 255
"""The value of a pixel of no class."""
MAX_CLASSES = 254
BACKGROUND_NAMES = frozenset({"background", "_background_", "__background__", "unlabeled", "unlabelled"})
"""Classes that are the background where a dataset does not say which is."""


class DatasetClass(BaseModel):
    """One class. ``background`` marks the ground: formats of objects leave its pixels without annotation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: int = Field(ge=0, lt=MAX_CLASSES)
    name: str = Field(min_length=1, max_length=120)
    colour: Colour
    background: bool = False


class ClassList(BaseModel):
    """The classes by index 0, 1, 2, ... without a gap; names and colours all differ; at most one is the background."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: tuple[DatasetClass, ...] = Field(min_length=1, max_length=MAX_CLASSES)

    @model_validator(mode="after")
    def _consistent(self) -> ClassList:
        indices = [entry.index for entry in self.classes]
        if indices != list(range(len(indices))):
            raise ValueError(f"classes are listed by index 0, 1, 2, ... without a gap, not {indices[:12]}")
        for what, values in (("name", self.names), ("colour", self.colours)):
            if len(set(values)) < len(values):
                twice = next(value for number, value in enumerate(values) if value in values[:number])
                raise ValueError(f"the {what} {twice!r} stands for two classes; give each its own")
        if any(not 0 <= channel <= 255 for colour in self.colours for channel in colour):
            raise ValueError("a colour is (red, green, blue), each 0 to 255")
        if sum(entry.background for entry in self.classes) > 1:
            raise ValueError("at most one class is the background")
        return self

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        colours: Mapping[str, Colour] | None = None,
        *,
        background: str | bool | None = True,
    ) -> ClassList:
        """Classes by name in the order of their indices, with colours for those that have none.

        ``background`` names the background, None for none of them; True takes the first of :data:`BACKGROUND_NAMES`.
        Raises ValueError.
        """
        if background is True:
            background = next((name for name in names if name.casefold() in BACKGROUND_NAMES), None)
        painted = _colours(names, colours or {})
        return cls(
            classes=tuple(
                DatasetClass(index=index, name=name, colour=painted[index], background=name == background)
                for index, name in enumerate(names)
            )
        )

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def names(self) -> tuple[str, ...]:
        """By index."""
        return tuple(entry.name for entry in self.classes)

    @property
    def colours(self) -> tuple[Colour, ...]:
        """By index."""
        return tuple(entry.colour for entry in self.classes)

    @property
    def background(self) -> DatasetClass | None:
        """The class that is the background, if one is."""
        return next((entry for entry in self.classes if entry.background), None)

    @property
    def objects(self) -> tuple[DatasetClass, ...]:
        """All but the background."""
        return tuple(entry for entry in self.classes if not entry.background)

    def unknown_labels(self, labels: np.ndarray) -> list[int]:
        """The values in a mask ``(H, W)`` uint8 that are neither a class nor 255, ascending."""
        # a service that takes no mask apart need not load numpy to know what a class is
        import numpy as np

        present = np.flatnonzero(np.bincount(labels.reshape(-1), minlength=256))
        return [int(value) for value in present if len(self) <= value != IGNORE]

    def table(self) -> list[dict[str, object]]:
        """The classes as ``dataset.json`` lists them."""
        return [
            {"index": c.index, "name": c.name, "colour": list(c.colour), "background": c.background}
            for c in self.classes
        ]


def _colours(names: Sequence[str], given: Mapping[str, Colour]) -> list[Colour]:
    """The given colours, and for the others those of the palette that are not taken."""
    from model_store.masks.palette import fibonacci_rgb

    taken = set(given.values())
    spread: Iterable[Colour] = (tuple(map(int, row)) for row in fibonacci_rgb(min(255, len(names) + len(taken) + 1)))  # type: ignore[misc]
    free = iter([colour for colour in spread if colour not in taken and colour != (255, 255, 255)])
    return [given[name] if name in given else next(free) for name in names]
