"""`install()`: ours where nothing else runs, never in front of a package that does; and it says so."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest


def run(code, folder=None, *arguments):
    """What a fresh interpreter prints, with packages of a folder in front."""
    source = textwrap.dedent(code)
    lines = [f"import sys; sys.path.insert(0, {str(folder)!r})" if folder else "", source]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def package(folder: Path, name: str, **modules: str):
    """A package of the given name; `init` is its `__init__`."""
    (folder / name).mkdir()
    for module, text in {"init": "", **modules}.items():
        file = "__init__" if module == "init" else module
        (folder / name / f"{file}.py").write_text(textwrap.dedent(text))


ABSENT = """
    from mamba_kernels.compat import install, uninstall
    print(*install(), sep="\\n")
    import importlib.util, mamba_ssm, causal_conv1d
    from mamba_ssm import Mamba, Mamba2, MambaLMHeadModel, mamba_inner_fn, selective_scan_fn
    from mamba_ssm.models.config_mamba import MambaConfig
    from mamba_ssm.models.mixer_seq_simple import MixerModel, create_block
    from mamba_ssm.modules.block import Block
    from mamba_ssm.modules.mamba_simple import Mamba as Same
    from mamba_ssm.ops.triton.layer_norm import RMSNorm, layer_norm_fn, rms_norm_fn
    from mamba_ssm.ops.triton.layernorm_gated import RMSNorm as RMSNormGated
    from mamba_ssm.ops.triton.selective_state_update import selective_state_update
    from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined, mamba_split_conv1d_scan_combined
    from mamba_ssm.utils.generation import GenerationMixin, InferenceParams
    from mamba_ssm.utils.hf import load_config_hf, load_state_dict_hf
    from mamba_ssm.utils.torch import custom_bwd, custom_fwd
    from causal_conv1d import causal_conv1d_fn, causal_conv1d_update
    from causal_conv1d.causal_conv1d_varlen import causal_conv1d_varlen_states
    from causal_conv1d.cpp_functions import causal_conv1d_fwd_function
    assert Same is Mamba and Mamba.__module__ == "mamba_kernels.compat.mamba_ssm.modules.mamba_simple"
    assert importlib.util.find_spec("mamba_ssm") and importlib.util.find_spec("causal_conv1d")
    assert tuple(map(int, mamba_ssm.__version__.split("+")[0].split("."))) >= (2, 0, 4)
    try:
        import mamba_ssm.ops.nothing
    except ModuleNotFoundError as error:
        print(error)
    print(*install(), sep="\\n")
    uninstall()
    print(importlib.util.find_spec("mamba_ssm"), [n for n in sys.modules if n.startswith("mamba_ssm")])
"""


def test_where_there_is_nothing_ours_is_found():
    assert run("import sys" + ABSENT.replace("\n    ", "\n")).splitlines() == [
        "causal_conv1d: mamba_kernels, which is not installed",
        "mamba_ssm: mamba_kernels, which is not installed",
        "No module named 'mamba_ssm.ops.nothing'",
        "causal_conv1d: mamba_kernels, as before",
        "mamba_ssm: mamba_kernels, as before",
        "None []",
    ]


WORKING = "def {}(*tensors):\n    return tensors[0]\n"
SHOW = """
    from mamba_kernels.compat import install
    print(*install({}), sep="\\n")
    import mamba_ssm, causal_conv1d
    print(mamba_ssm.selective_scan_fn.__module__, causal_conv1d.causal_conv1d_fn.__module__)
"""


def test_packages_that_run_are_left_alone_unless_asked(tmp_path):
    package(tmp_path, "mamba_ssm", init=WORKING.format("selective_scan_fn"))
    package(tmp_path, "causal_conv1d", init=WORKING.format("causal_conv1d_fn"))
    assert run(SHOW.format(""), tmp_path).splitlines() == [
        "causal_conv1d: the installed package, which runs here",
        "mamba_ssm: the installed package, which runs here",
        "mamba_ssm causal_conv1d",
    ]
    replaced = run(SHOW.format("replace=True"), tmp_path).splitlines()
    assert replaced[1] == "mamba_ssm: mamba_kernels, in place of the installed one, as asked"
    assert replaced[2].startswith("mamba_kernels.compat.mamba_ssm")


def test_one_that_runs_beside_one_that_is_missing(tmp_path):
    package(tmp_path, "mamba_ssm", init=WORKING.format("selective_scan_fn") + "import causal_conv1d\n")
    shown = run(SHOW.format(""), tmp_path).splitlines()
    assert shown[:2] == [
        "causal_conv1d: mamba_kernels, which is not installed",
        "mamba_ssm: the installed package, which runs here",
    ]


BROKEN = {
    "at the import": ("import mamba_ssm.ops\nraise OSError('undefined symbol: _ZN3c10')", "OSError: undefined symbol"),
    "at the call": (
        "def selective_scan_fn(*tensors):\n    raise RuntimeError('no kernel\\nsecond line')\n",
        "RuntimeError: no kernel)",
    ),
    "without a word": ("assert False", "AssertionError: no message"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_packages_that_do_not_run_are_replaced_whole(tmp_path, how):
    text, reason = BROKEN[how]
    package(tmp_path, "mamba_ssm", init=text, ops="left = 'behind'")
    shown = run(SHOW.format("") + "\n    import mamba_ssm.ops; print(hasattr(mamba_ssm.ops, 'left'))", tmp_path)
    lines = shown.splitlines()
    assert lines[1].startswith("mamba_ssm: mamba_kernels, since the installed one does not run here (")
    assert reason in lines[1]
    assert lines[2].startswith("mamba_kernels.compat.mamba_ssm")
    assert lines[3] == "False"


def test_modules_that_looked_before_are_named():
    shown = run("""
        import sys, types
        sys.modules["transformers.models.mamba.modeling_mamba"] = types.ModuleType("early")
        from mamba_kernels.compat import install
        print(*install(), sep="\\n")
    """)
    assert shown.count("too late for transformers.models.mamba.modeling_mamba, imported before: call install()") == 2


PROGRAM = "import sys, mamba_ssm\nprint(mamba_ssm.Mamba.__module__, sys.argv[1:], __name__, beside.x)\n"


def test_a_program_runs_on_ours_unchanged(tmp_path):
    (tmp_path / "beside.py").write_text("x = 5\n")
    (tmp_path / "program.py").write_text("import beside\n" + PROGRAM + "sys.exit(3)\n")
    command = [sys.executable, "-m", "mamba_kernels.compat"]
    expected = "mamba_kernels.compat.mamba_ssm.modules.mamba_simple ['--layers', '2'] __main__ 5\n"
    for words in ([str(tmp_path / "program.py")], ["-m", "program"]):
        done = subprocess.run(
            [*command, *words, "--layers", "2"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (3, expected), done.stderr
        assert "mamba_ssm: mamba_kernels, which is not installed" in done.stderr
    for words, said in ((["nowhere.py"], "nowhere.py: no such script"), (["-m"], "-m needs the name of a module")):
        done = subprocess.run([*command, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert said in done.stderr
    assert "mamba_ssm: mamba_kernels" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
