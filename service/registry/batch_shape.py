"""Batch shape of a model on a machine type, as measured by the first worker of that type and kept in the store."""

from __future__ import annotations

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field


class ShapeChoice(BaseModel):
    """A chosen shape and its measurements; the keys of ``seconds_per_row`` are numbers of rows."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: str = Field(description="its key: name@version, or owner:name@version")
    machine: dict[str, str]
    rows: int = Field(ge=2)
    seconds_per_row: dict[int, float]
    chosen_at: AwareDatetime

    @property
    def row_seconds(self) -> float | None:
        """Seconds of a row in a full forward of the chosen shape; None if that shape was not measured."""
        return self.seconds_per_row.get(self.rows)
