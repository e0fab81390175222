"""What the documentation says to type exists, and what it links to is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from genomamba.cli import cli as genomamba
from tsmamba.cli import cli as tsmamba

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md")])
PROGRAMS: dict[str, click.Command] = {"genomamba": genomamba, "tsmamba": tsmamba}
FENCED = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^    (.+)$", re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)#:]+)(?:#[^)]*)?\)")


def commands(text: str) -> list[list[str]]:
    """The command lines of our programs in a document's code blocks, without prompt and comment."""
    blocks = [*FENCED.findall(text), *INDENTED.findall(text)]
    lines = [line.strip().removeprefix("$ ") for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [
        shlex.split(line, comments=True) for line in lines if line.split(maxsplit=1)[:1] in (["genomamba"], ["tsmamba"])
    ]


def problem(words: list[str]) -> str | None:
    """What in a command line its program does not know, or None."""
    command = PROGRAMS[words[0]]
    for word in words[1:]:
        if isinstance(command, click.Group) and not word.startswith("-"):
            if word not in command.commands:
                return f"{' '.join(words)}: no command {word}"
            command = command.commands[word]
        elif word.startswith("--"):
            options = {name for parameter in command.params for name in parameter.opts} | {"--help", "--version"}
            if word.partition("=")[0] not in options:
                return f"{' '.join(words)}: no option {word}"
    return None


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_in_the_documentation_exist(document: Path) -> None:
    found = [problem(words) for words in commands(document.read_text(encoding="utf-8"))]
    assert [text for text in found if text] == []


def test_the_readme_shows_the_main_job() -> None:
    shown = {words[1] for words in commands((ROOT / "README.md").read_text(encoding="utf-8"))}
    assert {"pretrain", "finetune", "classify"} <= shown


@pytest.mark.parametrize("line", ["genomamba no-such", "genomamba pretrain --no-such", "tsmamba fit --epochs 3"])
def test_an_unknown_command_is_noticed(line: str) -> None:
    assert problem(shlex.split(line))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    links = LINK.findall(document.read_text(encoding="utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_make_targets_in_the_documentation_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        target
        for document in DOCUMENTS
        for target in re.findall(r"`make ([a-z-]+)|^ {4}make ([a-z-]+)", document.read_text(), re.MULTILINE)
    }
    assert {name for pair in named for name in pair if name} <= targets
