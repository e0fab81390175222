"""A file is one noun and a function one verb: both stay short enough to be read at once."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ["genomamba", "tsmamba", "kernels", "data_prep", "training", "configs", "benchmarks", "tests"]
FILES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
LONGEST_FILE = 500
LONGEST_FUNCTION = 60


def functions(node: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [inner for inner in ast.walk(node) if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef)]


def lines(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring and those of functions inside it."""
    return lines(function) - sum(lines(inner.body[0]) for inner in functions(function) if ast.get_docstring(inner))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_short_and_modules_say_what_they_are(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    assert source.count("\n") <= LONGEST_FILE
    assert [f.name for f in functions(tree) if length(f) > LONGEST_FUNCTION] == []
    assert not tree.body or ast.get_docstring(tree)


NAMES = ("Excel", "EMBL", "GenBank", "CUDA", "GPU", "YAML", "JSON", "FASTA", "BED", "VCF", "Parquet", "N ")
"""What begins with a capital wherever it stands."""


def beginning(problem: ast.expr) -> str:
    """The first words of a message, as far as they are written in the source."""
    if isinstance(problem, ast.JoinedStr):
        problem = problem.values[0]
    if isinstance(problem, ast.BinOp):
        return beginning(problem.left)
    if isinstance(problem, ast.IfExp):
        return beginning(problem.body)
    return problem.value if isinstance(problem, ast.Constant) and isinstance(problem.value, str) else ""


def messages(source: str) -> list[str]:
    """How the problem begins, and how what to do begins, of each `UserError` that a module makes."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    errors = [call for call in calls if ast.unparse(call.func).rpartition(".")[2] in ("UserError", "error")]
    said = [part for call in errors for part in call.args[:1]]
    said += [word.value for call in errors for word in call.keywords if word.arg == "fix"]
    return [beginning(part) for part in said]


@pytest.mark.parametrize("path", [path for path in FILES if "tests" not in path.parts], ids=lambda path: path.stem)
def test_errors_begin_small_since_a_place_may_stand_before_them(path: Path) -> None:
    capitals = [text for text in messages(path.read_text()) if text[:1].isupper() and not text.startswith(NAMES)]
    assert capitals == []


def test_a_capital_is_noticed() -> None:
    source = 'raise UserError("No such file" if x else "b")\nraise row.error(f"The {a}" + b, fix="Mend it")\n'
    assert messages(source) == ["No such file", "The ", "Mend it"]


def test_no_conflict_was_left_unresolved() -> None:
    marks = ("<" * 7 + " ", ">" * 7 + " ")
    texts = [path for ending in ("py", "md", "toml", "yaml", "cpp") for path in ROOT.glob(f"**/*.{ending}")]
    ours = [path for path in texts if not any(part.startswith(".venv") for part in path.relative_to(ROOT).parts)]
    assert len(ours) > 300
    left = [path.name for path in ours if any(line.startswith(marks) for line in path.read_text().splitlines())]
    assert left == []
