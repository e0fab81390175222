"""Nothing in the tree loads data in a way that can run code, and nothing unfinished is left behind."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = [
    path
    for folder in ("genomamba", "tsmamba", "kernels", "data_prep", "training", "configs", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {
    *("eval", "exec", "__import__", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "yaml.full_load"),
    *("pandas.read_pickle", "pd.read_pickle", "torch.jit.load", "torch.hub.load"),
}


def findings(source: str) -> list[str]:
    """What in this source could run code from data, as 'line: what'."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [f"{node.lineno}: imports {a.name}" for a in node.names if a.name.split(".")[0] in UNSAFE_MODULES]
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in UNSAFE_MODULES:
            found.append(f"{node.lineno}: imports {node.module}")
        elif isinstance(node, ast.Call):
            found += [f"{node.lineno}: {problem}" for problem in _problems_of_call(node)]
    return found


def _problems_of_call(node: ast.Call) -> list[str]:
    name = ast.unparse(node.func)
    keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    problems = [f"calls {name}"] if name in UNSAFE_CALLS else []
    if name == "torch.load" and keywords.get("weights_only") != "True":
        problems.append("torch.load without weights_only=True")
    unsafe = {"weights_only": "False", "trust_remote_code": "True", "allow_pickle": "True", "shell": "True"}
    return problems + [f"{key}={value}" for key, value in unsafe.items() if keywords.get(key) == value]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_unsafe_load(path: Path) -> None:
    assert findings(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "eval('1')",
        "import os; os.system('true')",
        "import yaml; yaml.load(f)",
        "import torch; torch.load('m.pt')",
        "import torch; torch.load('m.pt', weights_only=False)",
        "import numpy as np; np.load('a.npy', allow_pickle=True)",
        "AutoModel.from_pretrained('x', trust_remote_code=True)",
        "import subprocess; subprocess.run('ls', shell=True)",
    ],
)
def test_the_search_finds_what_it_looks_for(source: str) -> None:
    assert findings(source)


def test_the_search_leaves_safe_calls_alone() -> None:
    assert findings("import torch\nmodel.eval()\ntorch.load('m.pt', weights_only=True)\nyaml.safe_load(f)") == []


def test_no_unfinished_work_is_left() -> None:
    marks = "TO" + "DO|FIX" + "ME|X" + "XX"
    hits = subprocess.run(
        ["git", "grep", "-nIwE", marks, "--", "*.py", "*.yaml", "*.md", "*.toml", "Makefile"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if hits.returncode > 1:
        pytest.skip("not a git checkout")
    assert hits.stdout == ""
