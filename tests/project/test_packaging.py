"""The wheel and the sdist hold what they should, and the wheel lives beside Hugging Face's `kernels`."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tarfile
import textwrap
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"genomamba", "tsmamba", "mamba_kernels", "mamba_data_prep", "mamba_training", "mamba_configs"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel built from that sdist."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (path,) = built.glob("*.whl")
    return path


def test_the_wheel_runs_anywhere_and_takes_no_generic_name(wheel: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == PACKAGES
    compiled = (".so", ".pyd", ".pyc", ".cubin", ".nbi", ".nbc")
    assert not [name for name in names if name.endswith(compiled) or "__pycache__" in name]


def test_the_wheel_holds_types_presets_demo_and_licence(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    presets = {path.relative_to(ROOT / "configs").as_posix() for path in (ROOT / "configs").rglob("*.yaml")}
    assert presets
    assert presets <= names
    demo = {path.relative_to(ROOT).as_posix() for path in (ROOT / "genomamba/demo/data").iterdir()}
    assert {path for path in demo if path.endswith((".fa.gz", ".md"))} <= names
    for document in ("LICENSE", "NOTICE"):
        assert any(name.endswith(f".dist-info/licenses/{document}") for name in names)
    bundles = [path.parent for path in ROOT.glob("*/models/*/model.safetensors")]
    models = {path.relative_to(ROOT).as_posix() for bundle in bundles for path in bundle.iterdir()}
    named = ("tsmamba/models/zero", "genomamba/models/human-1.4m", "genomamba/models/human-bi-1.4m")
    shipped = {f"{name}/model.safetensors" for name in named}
    assert shipped <= models <= names
    assert all(sum(path.stat().st_size for path in bundle.iterdir()) <= 12_000_000 for bundle in bundles)
    assert wheel.stat().st_size < 2_500_000 + 12_000_000 * len(bundles)


def test_every_source_file_is_in_the_wheel(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".py")}
    folders = [ROOT, ROOT / "kernels", ROOT / "data_prep", ROOT / "training", ROOT / "configs"]
    expected = {
        path.relative_to(folder).as_posix()
        for folder in folders
        for package in PACKAGES
        for path in (folder / package).rglob("*.py")
    }
    assert names == expected


def test_the_sdist_holds_sources_tests_and_no_runs(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "Makefile", "constraints.txt", "tests/conftest.py"} <= names
    assert not [name for name in names if name.startswith(("runs/", ".venv/", "dist/")) or "__pycache__" in name]


def test_every_dependency_is_pinned_to_a_version_it_allows() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [text for group in project["optional-dependencies"].values() for text in group]
    pins = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines()]
    versions = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins}
    for text in [*project["dependencies"], *extras]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), text


@pytest.mark.slow
def test_the_wheel_lives_beside_hugging_face_kernels(wheel: Path, tmp_path: Path) -> None:
    """Both import, transformers' Mamba computes, and removing theirs leaves ours whole."""
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env/bin/python"
    purelib = subprocess.check_output(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
    )
    # The third-party libraries of this environment, without its own `.pth` files and so without our editable install.
    Path(purelib.strip(), "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--force-reinstall"]
    subprocess.run([*pip, wheel], check=True)
    subprocess.run([*pip, "kernels"], check=True)
    program = textwrap.dedent(
        """
        import kernels, mamba_kernels, genomamba, torch, transformers
        assert "libraries" not in mamba_kernels.__file__ and "env/" in mamba_kernels.__file__, mamba_kernels.__file__
        assert "env/" in kernels.__file__ and hasattr(kernels, "get_kernel"), kernels.__file__
        config = transformers.MambaConfig(vocab_size=16, hidden_size=32, num_hidden_layers=2)
        logits = transformers.MambaForCausalLM(config)(torch.tensor([[7, 8, 9, 10]])).logits
        assert logits.shape == (1, 4, 16) and logits.isfinite().all()
        """
    )
    subprocess.run([python, "-I", "-c", program], check=True, cwd=tmp_path)
    subprocess.run([python, "-m", "pip", "uninstall", "--quiet", "--yes", "kernels"], check=True)
    subprocess.run([python, "-I", "-c", "import mamba_kernels.dispatch, genomamba.cli"], check=True, cwd=tmp_path)
