"""Where Triton or Numba cannot be imported, everything runs by what is left."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys

class Refuses:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ImportError(f"{{name}} is blocked")

sys.meta_path.insert(0, Refuses())
import torch
from mamba_kernels.blocks import Backbone, BackboneConfig

torch.manual_seed(0)
backbone = Backbone(BackboneConfig(d_model=8, layers=["mamba", "mamba2", "s4d"]))
x = torch.randn(2, 300, 8, requires_grad=True)
y, _ = backbone(x)
y.square().mean().backward()
assert not any(name.partition(".")[0] in {blocked!r} for name in sys.modules)
print(f"{{float(y.square().mean()):.6f}} {{float(x.grad.abs().sum()):.6f}}")
"""


def run(blocked: tuple[str, ...]) -> tuple[list[float], str]:
    program = PROGRAM.format(blocked=blocked)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [float(word) for word in done.stdout.split()], done.stderr


def test_blocked_packages_change_the_speed_alone() -> None:
    whole, _ = run(())
    without_triton, _ = run(("triton",))
    without_both, said = run(("triton", "numba", "llvmlite"))
    assert without_triton == pytest.approx(whole, rel=1e-4)
    assert without_both == pytest.approx(whole, rel=1e-4)
    assert said.count("Numba") <= 1  # what is lost is said once, not at each call
