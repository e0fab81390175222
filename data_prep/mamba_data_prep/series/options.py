"""How to read a file: what the user said, or what an earlier reading found, as one reusable YAML file."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from mamba_configs.yaml_files import parse_yaml, read_yaml, write_yaml
from mamba_data_prep.atomic import atomic_write
from mamba_data_prep.errors import UserError

_HEADER = "# How to read a table of time series; every key is optional, and what is absent is detected.\n"
_MARKS = {"tab": "\t", "space": " ", "comma": ",", "semicolon": ";"}
_CHOICES = {
    "decimal": (".", ","),
    "layout": ("wide", "long", "single"),
    "duplicates": ("refuse", "mean", "sum", "first", "last"),
}


@dataclass(frozen=True)
class ReadOptions:
    """What is known of a file before it is read; None or () means: find out.

    Attributes:
        delimiter: the mark between fields.
        decimal: the decimal mark of numbers, "." or ",".
        thousands: the mark between groups of three digits.
        encoding: a Python codec's name.
        sheet: the name of a workbook's sheet; the first by default.
        skip: how many lines come before the table.
        header: how many lines of the table are its header.
        time: the time column; several columns (date and time of day; year, month, day) are joined.
        time_format: the directives of `strftime`, with `%-m` for a month without padding, `%q` for a quarter, `%G`-`%V`
            for an ISO week, `%s` for seconds since 1970, and `[...]` around what may be absent.
        dayfirst: whether 1/2/2020 is in February.
        zone: the IANA time zone of times that carry none.
        layout: "wide" (a series a column), "long" (a series a value of the id columns) or "single".
        id: the columns that name a series.
        target: the columns to forecast.
        past_covariates: columns known up to the present.
        future_covariates: columns known for the times to forecast as well.
        static_covariates: columns with one value a series.
        ignore: columns to leave out.
        frequency: a pandas offset alias; values that fall into one step are averaged.
        missing: words that mean "no value", besides the usual ones.
        duplicates: what becomes of rows that contradict each other about one time.
    """

    delimiter: str | None = None
    decimal: str | None = None
    thousands: str | None = None
    encoding: str | None = None
    sheet: str | None = None
    skip: int | None = None
    header: int | None = None
    time: tuple[str, ...] = ()
    time_format: str | None = None
    dayfirst: bool | None = None
    zone: str | None = None
    layout: str | None = None
    id: tuple[str, ...] = ()
    target: tuple[str, ...] = ()
    past_covariates: tuple[str, ...] = ()
    future_covariates: tuple[str, ...] = ()
    static_covariates: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    frequency: str | None = None
    missing: tuple[str, ...] = ()
    duplicates: Literal["refuse", "mean", "sum", "first", "last"] = "refuse"

    def __post_init__(self) -> None:
        for name in _NAMES:
            object.__setattr__(self, name, _names(getattr(self, name)))
        for name, accepted in _CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in accepted:
                raise UserError(f"{name} has no such value", found=value, accepted=", ".join(accepted))

    @classmethod
    def load(cls, path: str | Path) -> ReadOptions:
        """Reads options from a YAML file.

        Raises:
            UserError: the file is not there, is not YAML, or has a key that is no option.
        """
        content = read_yaml(path)
        known = [field.name for field in fields(cls)]
        for name, value in content.values.items():
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                raise UserError(
                    "there is no such reading option", path=path, line=content.line(name), found=name,
                    accepted=", ".join(known), fix=f"did you mean {near[0]}?" if near else None,
                )  # fmt: skip
            _check_kind(name, value, Path(path), content.line(name))
        settings: dict[str, Any] = {name: _names(v) if name in _NAMES else v for name, v in content.values.items()}
        try:
            return cls(**settings)
        except UserError as error:
            raise UserError(error.problem, path=path, found=error.found, accepted=error.accepted) from None

    def having(self, settings: Sequence[str]) -> ReadOptions:
        """Gives these options with `key=value` settings on top; several values are parted by commas.

        Raises:
            UserError: there is no such option, or it takes no such value.
        """
        changes: dict[str, Any] = {}
        known = {field.name: field.default for field in fields(self)}
        for setting in settings:
            name, _, value = setting.partition("=")
            if name not in known or not value:
                raise UserError(
                    "there is no such reading option", found=setting, accepted=", ".join(f"{n}=..." for n in known)
                )
            if name in _NAMES:
                changes[name] = tuple(value.split(","))
            else:
                changes[name] = (
                    parse_yaml(value) if name in ("skip", "header", "dayfirst") else _MARKS.get(value, value)
                )
        return replace(self, **changes)

    def save(self, path: str | Path) -> None:
        """Writes the options that are set to a YAML file."""
        kept = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items() if v not in (None, ())}
        with atomic_write(path) as stream:
            stream.write(_HEADER + write_yaml(kept))


_NAMES = (*("time", "id", "target", "past_covariates", "future_covariates", "static_covariates", "ignore", "missing"),)


_KINDS: dict[str, tuple[type, str]] = {
    **dict.fromkeys(("delimiter", "decimal", "thousands", "encoding", "time_format"), (str, "a text")),
    **dict.fromkeys(("zone", "layout", "frequency", "duplicates", "sheet"), (str, "a text")),
    **dict.fromkeys(("skip", "header"), (int, "a whole number from 0")),
    **{"dayfirst": (bool, "true or false")},
}


def _check_kind(name: str, value: Any, path: Path, line: int | None) -> None:
    """Refuses a value of another kind, such as a list where a text is meant."""
    if value is None:
        return
    if name in _NAMES:
        parts, accepted = value if isinstance(value, list) else [value], "a column's name, or a list of names"
        right = not any(isinstance(part, dict | list) for part in parts)
    else:
        kind, accepted = _KINDS[name]
        right = type(value) is kind and (kind is not int or value >= 0)
    if not right:
        raise UserError(f"{name} cannot be this", path=path, line=line, found=value, accepted=accepted)


def _names(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(str(item) for item in value)
