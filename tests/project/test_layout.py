"""Who may import what, read from the source with `ast`, so that an import inside a function counts too."""

from __future__ import annotations

import ast
import graphlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = {
    "mamba_kernels": ROOT / "kernels/mamba_kernels",
    "mamba_data_prep": ROOT / "data_prep/mamba_data_prep",
    "mamba_training": ROOT / "training/mamba_training",
    "mamba_configs": ROOT / "configs/mamba_configs",
    "genomamba": ROOT / "genomamba",
    "tsmamba": ROOT / "tsmamba",
}
LOWER = {"mamba_kernels", "mamba_data_prep", "mamba_training", "mamba_configs"}
ALLOWED_ROOMS = {
    "mamba_kernels": {"mamba_configs"},
    "mamba_data_prep": {"mamba_configs"},
    "mamba_training": {"mamba_kernels", "mamba_data_prep", "mamba_configs"},
    "mamba_configs": set(),
    "genomamba": LOWER,
    "tsmamba": LOWER,
}
ALLOWED_LIBRARIES = {
    "mamba_kernels": {
        *("torch", "numpy", "numba", "llvmlite", "triton", "jaxtyping", "safetensors"),
        "huggingface_hub",  # other people's models by name, an extra
    },
    "mamba_data_prep": {
        *("numpy", "pandas", "pyarrow", "pyfaidx", "Bio", "torch", "xxhash", "filelock", "psutil", "jaxtyping"),
        "openpyxl",  # workbooks, an extra
    },
    "mamba_training": {
        *("torch", "numpy", "lightning", "safetensors", "torchmetrics", "matplotlib", "rich", "psutil", "jaxtyping"),
    },
    "mamba_configs": {"yaml", "pydantic", "click"},
}


def sources(room: str) -> list[Path]:
    return sorted(ROOMS[room].rglob("*.py"))


def imports(path: Path) -> set[str]:
    """The top-level names that a file imports; a relative import stays in its own package."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_only_the_rooms_below_them(room: str) -> None:
    allowed = ALLOWED_ROOMS[room] | {room}
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(room)
        for name in imports(path) & (set(ROOMS) - allowed)
    }
    assert sources(room)
    assert not wrong


@pytest.mark.parametrize("room", ALLOWED_LIBRARIES)
def test_lower_rooms_use_only_their_libraries(room: str) -> None:
    allowed = ALLOWED_LIBRARIES[room] | ALLOWED_ROOMS[room] | {room} | sys.stdlib_module_names
    wrong = {f"{path.relative_to(ROOT)}: {name}" for path in sources(room) for name in imports(path) - allowed}
    assert not wrong


def test_only_command_lines_import_click() -> None:
    users = {path for room in ROOMS for path in sources(room) if "click" in imports(path)}
    own = {path for path in users if path.parent == ROOMS["genomamba"] / "command_lines"}
    assert own
    assert users - own == {ROOMS["tsmamba"] / "cli.py", ROOMS["mamba_configs"] / "command_line.py"}


def test_yaml_is_read_in_one_place() -> None:
    """Where duplicate keys, bombs and code are refused; a second reader would let them in again."""
    users = {path for room in ROOMS for path in sources(room) if "yaml" in imports(path)}
    assert users == {ROOMS["mamba_configs"] / "yaml_files.py"}


def test_lightning_stays_with_training_command_lines_and_lightning_modules() -> None:
    wrong = [
        str(path.relative_to(ROOT))
        for room in ("genomamba", "tsmamba")
        for path in sources(room)
        if imports(path) & {"lightning", "pytorch_lightning"}
        and path.name != "cli.py"
        and not _defines_lightning_class(path)
    ]
    assert not wrong


def _defines_lightning_class(path: Path) -> bool:
    classes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)]
    return any("Lightning" in ast.unparse(base) for node in classes for base in node.bases)


def test_shared_folders_are_not_packages() -> None:
    """An `__init__.py` here would let a checkout shadow Hugging Face's `kernels`."""
    folders = ["kernels", "data_prep", "training", "configs", "tests", "notebooks"]
    assert not [folder for folder in folders if (ROOT / folder / "__init__.py").exists()]


def modules() -> dict[str, Path]:
    """Every module of every room by its dotted name; a package is its `__init__`."""
    found = {}
    for room, folder in ROOMS.items():
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join([room, *(part for part in parts if part != "__init__")])] = path
    return found


def imported_modules(path: Path, known: set[str]) -> set[str]:
    """The modules of ours that a file imports, in functions and for type checkers too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.update(
                whole if (whole := f"{node.module}.{alias.name}") in known else node.module for alias in node.names
            )
    return names & known


def test_no_module_imports_itself_by_way_of_others() -> None:
    known = modules()
    arrows = {name: imported_modules(path, set(known)) - {name} for name, path in known.items()}
    sorter = graphlib.TopologicalSorter(arrows)
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"these import one another: {' <- '.join(error.args[1])}")
