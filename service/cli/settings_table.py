"""Table of the settings: name, value, default and description."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from service.kit.setting_values import printable
from service.settings import ENV_PREFIX, Settings


@dataclass(frozen=True)
class SettingRow:
    """One line of ``twinset settings``; ``value`` is safe to print."""

    name: str
    env: str
    value: str
    default: str
    description: str


def describe(settings: Settings) -> list[SettingRow]:
    """The settings in the order of their declaration, with secrets and passwords masked."""
    untouched = Settings.model_construct(data_dir=settings.data_dir)
    rows = []
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True, validated_data={"data_dir": untouched.data_dir})
        if name == "data_dir":
            default = Path(default).absolute()
        rows.append(
            SettingRow(
                name=name,
                env=f"{ENV_PREFIX}{name.upper()}",
                value=printable(getattr(settings, name)),
                default=printable(default),
                description=field.description or "",
            )
        )
    return rows
