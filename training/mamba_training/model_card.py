"""The card that lies beside every model, `README.md` in its bundle: what it is, what made it, what to expect of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mamba_configs.yaml_files import write_yaml

__all__ = ["files_table", "markdown_table", "model_card", "settings_block", "versions_line"]


def model_card(title: str, about: str, sections: Mapping[str, str]) -> str:
    """A model card.

    Args:
        title: of the card.
        about: what the model is and what made it, in a paragraph.
        sections: heading -> Markdown, in their order; empty ones are left out.
    """
    parts = [f"# {title}", about.strip(), *(f"## {head}\n\n{text.strip()}" for head, text in sections.items() if text)]
    return "\n\n".join(parts) + "\n"


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table whose first column is words and whose others are figures."""
    head, *body = [f"| {' | '.join(map(str, row))} |" for row in (columns, *rows)]
    return "\n".join([head, "|---|" + "---:|" * (len(columns) - 1), *body])


def files_table(files: Mapping[str, Mapping[str, Any]]) -> str:
    """The files that a model was made from, by name, with what `Fingerprint.to_dict` says of each."""
    rows = [(f"`{Path(name).name}`", f"{found['size']:,}", f"`{found['xxh3_128']}`") for name, found in files.items()]
    return markdown_table(("file", "bytes", "xxh3-128"), rows)


def settings_block(settings: Mapping[str, Any]) -> str:
    """Settings as a block of YAML that can be copied into a file."""
    return f"```yaml\n{write_yaml(settings)}```"


def versions_line(versions: Mapping[str, str]) -> str:
    """The versions of everything that a result can depend on."""
    return ", ".join(f"{name} {version}" for name, version in versions.items())
