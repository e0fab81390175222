"""How the table that a forecaster was fitted on is written, so that further rows of it are read in the same way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mamba_data_prep.series import Frequency, ReadOptions, SeriesFrame, TimeFormat


@dataclass(frozen=True)
class Source:
    """How a table of series is written.

    Attributes:
        frequency: the step of its rows, with the zone on whose calendar it is counted.
        zone: of its times, or None.
        time_format: of its times.
        options: its columns and marks, as reading found them.
    """

    frequency: Frequency
    zone: str | None = None
    time_format: TimeFormat = TimeFormat()  # noqa: RUF009  (frozen)
    options: ReadOptions = ReadOptions()  # noqa: RUF009  (frozen)

    @classmethod
    def of(cls, frame: SeriesFrame) -> Source:
        """How the table that gave a frame is written."""
        return cls(frame.frequency, frame.zone, frame.time_format, frame.options)

    def to_dict(self) -> dict[str, Any]:
        """Gives plain values for JSON."""
        options = {name: value for name, value in asdict(self.options).items() if value not in (None, ())}
        return {
            "frequency": asdict(self.frequency),
            "zone": self.zone,
            "time_format": self.time_format.pattern,
            "options": {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Source:
        """Reads what `to_dict` wrote.

        Raises:
            KeyError, TypeError: it is none.
        """
        options: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values["options"].items()
        }
        step = {**values["frequency"], "slots": tuple(values["frequency"].get("slots", ()))}
        frequency, format = Frequency(**step), TimeFormat(values["time_format"])
        return cls(frequency, values["zone"], format, ReadOptions(**options))
