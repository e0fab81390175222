"""One run from start to end: what it writes and what it returns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mamba_data_prep.errors import UserError
from mamba_training.devices import resolve_precision
from mamba_training.folders import check_run_folder


def test_a_run_writes_its_metrics_and_checkpoints(toy_run, rows, tmp_path) -> None:
    model, result = toy_run(val_every=4, config={"a": {"b": 1}})
    assert (result.status, result.step) == ("finished", 12)
    assert (tmp_path / "run" / "config.yaml").read_text() == "a:\n  b: 1\n"
    table = rows(tmp_path / "run" / "metrics.csv")
    assert [int(row["step"]) for row in table] == list(range(1, 13))
    assert [bool(row["val_loss"]) for row in table] == [step % 4 == 0 for step in range(1, 13)]
    assert sorted(path.name for path in (tmp_path / "run").rglob("*") if path.is_file()) == sorted(
        ["config.yaml", "metrics.csv", "last.ckpt", "previous.ckpt", "best.ckpt"]
    )
    assert [index for index, _ in model.seen] == list(range(12))


@pytest.mark.parametrize("capability", ["avx512_bf16", "amx_bf16", None])
def test_a_processor_that_multiplies_in_bf16_is_used_so_unless_told_otherwise(monkeypatch, capability) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {capability: True} if capability else {}, raising=False)
    assert resolve_precision("auto", "cpu") == ("bf16-mixed" if capability else "32-true")
    assert resolve_precision("auto") == resolve_precision("auto", "cpu")
    assert resolve_precision("32-true", "cpu") == "32-true"


def test_a_process_that_joins_a_run_does_not_ask_whether_its_folder_is_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    monkeypatch.setenv("LOCAL_RANK", "1")
    check_run_folder(tmp_path, resume=False)
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(UserError, match="not empty"):
        check_run_folder(tmp_path, resume=False)
