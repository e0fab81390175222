"""One run from start to end: what it writes and what it returns."""

from __future__ import annotations


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
