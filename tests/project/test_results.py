"""Each figure's file says which machine, commit, command, data and seeds it came from; documents show those files."""

from __future__ import annotations

import ast
import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from benchmarks import common, documents, long_horizon

FILES = sorted(common.RESULTS.glob("*.json"))
MACHINE = {
    "processor", "instructions", "cores", "threads", "memory_gib", "load", "system", "python", "packages", "date",
}  # fmt: skip
MADE = {"commit", "changed_since_commit", "command", "data", "seeds"}
OLDER = {"synthetic"}
"""Files that were written before how they were made was recorded; one that is measured anew leaves this list."""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_result_says_where_it_came_from(path: Path) -> None:
    found = json.loads(path.read_text())
    assert set(found["machine"]) >= MACHINE
    made = found["made"]
    assert set(made) >= MADE
    assert (made.get("recorded") == "not at the time") == (path.stem in OLDER)
    if path.stem in OLDER:
        return
    assert len(made["commit"]) == 40
    assert made["command"].startswith("python -m benchmarks.")
    assert all(len(digest) == 64 for digest in made["data"].values())
    assert found["machine"]["memory_gib"] > 0


def test_what_is_saved_now_says_so(tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    data.write_text("a,b\n")
    path = common.save_results("x", {"rows": [1]}, tmp_path, data=[data], seeds=range(3))
    found = json.loads(path.read_text())
    assert set(found) == {"machine", "made", "rows"}
    assert set(found["machine"]) >= MACHINE
    assert found["made"]["seeds"] == [0, 1, 2]
    assert found["made"]["data"] == {"data.csv": hashlib.sha256(b"a,b\n").hexdigest()}
    root = Path(common.__file__).parent
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False)
    assert found["made"]["commit"] == (head.stdout.strip() or None)
    assert common.load_results("x", tmp_path) == {"rows": [1]}


def test_the_documents_show_what_the_files_hold() -> None:
    stale = [path.name for path in documents.DOCUMENTS if documents.with_tables(path.read_text()) != path.read_text()]
    assert stale == []


def test_a_changed_figure_is_noticed(tmp_path: Path) -> None:
    rows = [{"model": "ours", "seconds": 2.0, "tokens/s": 10}]
    (tmp_path / "speed.json").write_text(json.dumps({"rows": rows}))
    text = "<!-- table speed.rows without tokens/s -->\n<!-- end of table -->"
    shown = documents.with_tables(text, tmp_path)
    assert "| ours | 2 |" in shown
    assert "10" not in shown
    rows[0]["seconds"] = 3.0
    (tmp_path / "speed.json").write_text(json.dumps({"rows": rows}))
    assert documents.with_tables(shown, tmp_path) != shown


def calls_of_save_results(source: str) -> list[set[str | None]]:
    """The keywords of each call of `save_results` in a module."""
    found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [{word.arg for word in call.keywords} for call in found if ast.unparse(call.func) == "save_results"]


READERS = ["bf16", "covariates", "coverage", "demo", "long_horizon", "markov", "pretrain", "promoters", "studies"]


@pytest.mark.parametrize("name", READERS)
def test_a_benchmark_that_reads_files_keeps_their_hashes(name: str) -> None:
    found = calls_of_save_results((common.RESULTS.parent / f"{name}.py").read_text())
    assert found
    assert all("data" in keywords for keywords in found)


def test_no_benchmark_writes_results_by_itself() -> None:
    sources = {path.name: path.read_text() for path in common.RESULTS.parent.rglob("*.py") if path.name != "common.py"}
    assert [name for name, text in sources.items() if "json.dump(" in text or '.json").write_text' in text] == []


def test_a_result_tells_whether_code_was_changed_and_not_whether_results_were(tmp_path: Path) -> None:
    folder = tmp_path / "benchmarks"
    for name in ("results/a.json", "tool.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("1\n")
    (tmp_path / "package.py").write_text("1\n")
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for words in (["init", "-q"], ["add", "-A"], [*who, "commit", "-qm", "all"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)

    def changed(name: str) -> bool:
        (tmp_path / name).write_text("2\n")
        words = ["status", "--porcelain", "--untracked-files=no", "--", *common._WHAT_COUNTS]
        return bool(subprocess.run(["git", *words], cwd=folder, capture_output=True, check=True).stdout)

    assert not changed("benchmarks/results/a.json")
    assert changed("package.py")


def test_what_a_mamba_saves_is_told_once_a_lookback_and_horizon() -> None:
    def run(horizon: int, seed: int, kept: str, share: float, error: float | None) -> dict[str, object]:
        saved = {"share": share, "standard_error": error, "sure": error is not None and share > error}
        return {
            "lookback": 96,
            "horizon": horizon,
            "seed": seed,
            "network": kept,
            "mamba_saves": {"network off": saved},
        }

    runs = [run(192, 0, "off", 0.0, 0.0), run(96, 0, "mamba", 0.03, 0.01), run(96, 1, "identity", -0.01, 0.02)]
    assert long_horizon.savings([*runs, run(96, 2, "mamba", 0.04, None), {"lookback": 96, "horizon": 96}]) == [
        {"lookback": 96, "horizon": 192, "kept": "off", "saved of network off": "nothing",
         "sure of network off": "0 of 1"},
        {"lookback": 96, "horizon": 96, "kept": "mamba (2), identity (1)",
         "saved of network off": "+2.00% ± 1.00%", "sure of network off": "1 of 3"},
    ]  # fmt: skip
