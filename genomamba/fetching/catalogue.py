"""What can be fetched by name."""

from __future__ import annotations

import difflib
from importlib.resources import files
from pathlib import PurePosixPath

from pydantic import Field, field_validator, model_validator

from mamba_configs.settings import Section
from mamba_configs.yaml_files import parse_yaml
from mamba_data_prep.errors import UserError


class RemoteFile(Section):
    """One file.

    Attributes:
        name: below the entry's folder.
        urls: addresses, tried in turn.
        hash: `algorithm:hexadecimal` where the file never changes.
        checksums: addresses of a list of checksums that is published beside the file.
    """

    name: str = Field(description="a path below the entry's folder")
    urls: tuple[str, ...] = Field(min_length=1, description="a list of addresses")
    hash: str | None = Field(default=None, pattern=r"^(md5|sha256):[0-9a-f]+$", description="md5:... or sha256:...")
    checksums: tuple[str, ...] = Field(default=(), description="a list of addresses")

    @field_validator("name")
    @classmethod
    def _below(cls, name: str) -> str:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError("leads out of the folder")
        return name

    @model_validator(mode="after")
    def _one_way(self) -> RemoteFile:
        if self.hash is not None and self.checksums:
            raise ValueError("has a hash and a list of checksums")
        return self

    @property
    def known(self) -> str:
        """How it is known that the file came whole, in words."""
        if self.hash is not None:
            return "checksum known beforehand"
        return "checksum published beside it" if self.checksums else "held to its first download"


class Entry(Section):
    """What one name stands for.

    Attributes:
        about: what it is.
        terms: of use.
        files: what it consists of.
    """

    about: str = Field(description="a sentence")
    terms: str = Field(description="a sentence")
    files: tuple[RemoteFile, ...] = Field(min_length=1, description="a list of files")


def catalogue() -> dict[str, Entry]:
    """Name -> entry, of everything that is known."""
    text = (files("genomamba") / "fetching" / "catalogue.yaml").read_text(encoding="utf-8")
    return {name: Entry.model_validate(values) for name, values in parse_yaml(text).items()}


def entry_named(name: str) -> Entry:
    """The entry of a name.

    Raises:
        UserError: there is none.
    """
    known = catalogue()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        raise UserError(
            "there is no such data", found=name, accepted=", ".join(known),
            fix=f"did you mean {near[0]}?" if near else None,
        )  # fmt: skip
    return known[name]
