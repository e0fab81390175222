"""Other people's Mamba code on ours, through `install()`: whether it gives the same, and how long it takes.

Transformers' models run in two processes, with its own Python path and with ours installed as `mamba_ssm` and
`causal_conv1d`, in turn. Checkouts of Caduceus, S-Mamba and Vim, where given, run in float32 on the fast operators and
in float64 on the reference: `python -m benchmarks.drop_in --caduceus DIR --s-mamba DIR --vim DIR`.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.common import load_results, print_table, save_results

LENGTH, ROUNDS = 128, 2
SIZES = {"vocab_size": 64, "hidden_size": 128, "num_hidden_layers": 2}
HYBRID = {
    **{"intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2},
    **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
}
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "Mamba": ("MambaForCausalLM", "MambaConfig", {"state_size": 16}),
    "Mamba-2": (
        *("Mamba2ForCausalLM", "Mamba2Config"),
        {"state_size": 64, "head_dim": 32, "num_heads": 8, "n_groups": 1, "chunk_size": 64},
    ),
    "FalconMamba": ("FalconMambaForCausalLM", "FalconMambaConfig", {"state_size": 16}),
    "Jamba": (
        *("JambaForCausalLM", "JambaConfig"),
        {"attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 2, "num_experts_per_tok": 1, **HYBRID},
    ),
    "Bamba": (
        *("BambaForCausalLM", "BambaConfig"),
        {"attn_layer_indices": [1], "mamba_n_heads": 8, "mamba_d_head": 32, "mamba_chunk_size": 64, **HYBRID},
    ),
}


def _model(name: str) -> Any:
    """The same weights in every process. FalconMamba in evaluation mode: in training mamba-ssm norms it otherwise."""
    import transformers

    kind, config, own = MODELS[name]
    torch.manual_seed(0)
    model = getattr(transformers, kind)(getattr(transformers, config)(**SIZES, **own))
    return model.eval() if name == "FalconMamba" else model.train()


def _serve(way: str, folder: str) -> None:
    """Answer lines on standard input: `NAME` runs a model forward and backward and answers with its seconds."""
    warnings.simplefilter("ignore")
    if way == "ours":
        from mamba_kernels.compat import install

        install()
    models: dict[str, Any] = {}
    ids = torch.randint(3, 64, (1, LENGTH), generator=torch.Generator().manual_seed(1))
    for line in sys.stdin:
        name = line.strip()
        model = models[name] if name in models else models.setdefault(name, _model(name))
        model.zero_grad()
        start = time.perf_counter()
        found = model(ids, labels=ids)
        found.loss.backward()
        seconds = time.perf_counter() - start
        grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        torch.save({"logits": found.logits.detach(), "grads": grads}, Path(folder) / f"{way}-{name}.pt")
        print(f"seconds {seconds}", flush=True)


def _ask(process: subprocess.Popen[str], name: str) -> float:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{name}\n")
    process.stdin.flush()
    for line in process.stdout:
        if line.startswith("seconds "):
            return float(line.split()[1])
    raise RuntimeError(f"the process of {name} ended with {process.wait()}")


def measure_transformers() -> list[dict[str, Any]]:
    """A row a model: seconds of a step without and with ours, and how far results lie apart."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        ways = {
            way: subprocess.Popen(
                [sys.executable, "-m", "benchmarks.drop_in", "--serve", way, folder],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for way in ("theirs", "ours")
        }
        for name in MODELS:
            times: dict[str, list[float]] = {way: [] for way in ways}
            for turn in range(ROUNDS + 1):
                for way, process in ways.items():
                    seconds = _ask(process, name)
                    if turn:  # the first one compiles
                        times[way].append(seconds)
            theirs, ours = (torch.load(Path(folder) / f"{way}-{name}.pt", weights_only=True) for way in ways)
            print(name, times, flush=True)
            medians = {way: statistics.median(spent) for way, spent in times.items()}
            rows.append(
                {
                    "model": name,
                    "transformers alone, s": medians["theirs"],
                    "with install(), s": medians["ours"],
                    "times faster": medians["theirs"] / medians["ours"],
                    "logits apart": _apart(ours["logits"], theirs["logits"]),
                    "gradients apart": max(_apart(ours["grads"][n], g) for n, g in theirs["grads"].items()),
                    "seconds": times,
                }
            )
        for process in ways.values():
            process.terminate()
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def _apart(a: Tensor, b: Tensor) -> float:
    """The greatest difference, beside the greatest number (at least 1)."""
    return float(((a - b).abs().max() / (1 + b.abs().max())).detach())


def _compare(name: str, model: nn.Module, run: Callable[[Any, torch.dtype], Tensor]) -> dict[str, Any]:
    """A row: the model in float32 on the fast operators beside float64 on the reference."""
    exact = copy.deepcopy(model.eval()).double()
    out = run(model, torch.float32)
    os.environ["MAMBA_KERNELS_BACKEND"] = "reference"
    expected = run(exact, torch.float64)
    del os.environ["MAMBA_KERNELS_BACKEND"]
    outer = torch.randn(out.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    (out.double() * outer).sum().backward()
    (expected * outer).sum().backward()
    pairs = zip(model.parameters(), exact.parameters(), strict=True)
    gradients = [_apart(p.grad.double(), q.grad) for p, q in pairs if p.grad is not None and q.grad is not None]
    return {"code": name, "output apart": _apart(out.double(), expected), "gradients apart": max(gradients)}


def run_caduceus(folder: Path) -> list[dict[str, Any]]:
    """Caduceus-Ph and -PS, by its own model code."""
    sys.path.insert(0, str(folder))
    caduceus: Any = importlib.import_module("caduceus.modeling_caduceus")
    model_class = caduceus.CaduceusForMaskedLM
    tie = model_class.tie_weights  # transformers 5 calls it with arguments that it does not know
    model_class.tie_weights = lambda self, *_, **__: tie(self)
    ids, rows = torch.randint(7, 11, (2, 48)), []
    complement = {**{i: i for i in range(16)}, 7: 10, 8: 9, 9: 8, 10: 7}
    for form, equivariant in (("Ph", False), ("PS", True)):
        config = caduceus.CaduceusConfig(
            **{"d_model": 32, "n_layer": 2, "vocab_size": 12, "pad_vocab_size_multiple": 8, "ssm_cfg": {"d_state": 8}},
            **{"fused_add_norm": True, "rms_norm": True, "bidirectional": True, "bidirectional_weight_tie": True},
            **{"rcps": equivariant, "complement_map": dict(complement), "residual_in_fp32": False},
        )
        model = model_class(config)
        rows.append(_compare(f"Caduceus-{form}", model, lambda one, _: one(ids).logits))
    return rows


def run_s_mamba(folder: Path) -> list[dict[str, Any]]:
    """S-Mamba's forecaster, by its own model code."""
    sys.path.insert(0, str(folder))
    unused = types.ModuleType("reformer_pytorch")  # imported by its layers, of no use to this model
    unused.LSHSelfAttention = None  # pyright: ignore[reportAttributeAccessIssue]
    sys.modules.setdefault("reformer_pytorch", unused)
    settings = types.SimpleNamespace(
        **{"seq_len": 24, "pred_len": 8, "d_model": 32, "d_state": 8, "d_ff": 32, "e_layers": 2, "dropout": 0.0},
        **{"output_attention": False, "use_norm": True, "embed": "timeF", "freq": "h", "activation": "gelu"},
        class_strategy="projection",
    )
    model = importlib.import_module("model.S_Mamba").Model(settings)
    series, marks = torch.randn(2, 24, 7), torch.randn(2, 24, 4)
    return [_compare("S-Mamba", model, lambda one, d: one(series.to(d).clone(), marks.to(d), None, None))]


def run_vim(folder: Path) -> list[dict[str, Any]]:
    """Vision Mamba's two-way blocks, by its own file."""
    path = folder / "mamba-1p1p1/mamba_ssm/modules/mamba_simple.py"
    spec = importlib.util.spec_from_file_location("vim_mamba_simple", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    u, rows = torch.randn(2, 30, 24), []
    for kind in ("v1", "v2"):
        block = module.Mamba(24, d_state=8, bimamba_type=kind, if_divide_out=True)
        rows.append(_compare(f"Vim's block, {kind}", block, lambda one, d: one(u.to(d))))
    return rows


def main() -> None:
    """Measure, and keep what was not measured this time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    runs = {"caduceus": run_caduceus, "s_mamba": run_s_mamba, "vim": run_vim}
    for name in runs:
        parser.add_argument(f"--{name.replace('_', '-')}", type=Path, metavar="DIR", help=f"a checkout of {name}")
    arguments = parser.parse_args()
    if arguments.serve:
        _serve(*arguments.serve)
        return
    results = load_results("drop_in") | {"length": LENGTH, "transformers": measure_transformers()}
    print_table("transformers, a step forward and backward", results["transformers"])
    from mamba_kernels.compat import install

    print(*install(), sep="\n")
    torch.manual_seed(0)
    given = {name: getattr(arguments, name) for name in runs if getattr(arguments, name) is not None}
    code = [row for name, folder in given.items() for row in runs[name](folder)]
    if code:
        results["code"] = code
        print_table("float32 on the fast operators beside float64 on the reference", code)
    save_results("drop_in", results)


if __name__ == "__main__":
    main()
