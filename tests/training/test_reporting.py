"""What a user sees and finds: progress, metrics, and no remark of Lightning's."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from mamba_training.metrics_log import MetricsLog, read_rows
from mamba_training.progress import Moment, Reporter, amount, clock, nats_and_bits


def moment(step: int, **changed) -> Moment:
    values = {"step": step, "total": 100, "tokens": step * 1000, "seconds": step * 1.0, "limit": None, "lr": 1e-3}
    return Moment(**{**values, "metrics": {"loss": 1.3863, "val_loss": 1.2}, **changed})


def test_a_log_file_gets_a_line_every_so_often() -> None:
    text = io.StringIO()
    reporter = Reporter(every=100.0, console=Console(file=text))
    for step in (1, 2, 3):
        reporter.update(moment(step))
    reporter.update(moment(100), final=True)
    first, last = text.getvalue().splitlines()
    assert first.startswith("step 1/100  loss 1.3863 nats, 2.0000 bits/base, val 1.7312, lr 1.00e-03, 0:00:01 gone")
    assert last.startswith("step 100/100")
    assert "tokens/s" in last
    assert "0:00:00 left" in last


def test_a_terminal_gets_a_bar_with_the_applications_words() -> None:
    text = io.StringIO()
    reporter = Reporter(
        units=lambda metrics: f"MASE {metrics['loss']:.1f}", console=Console(file=text, width=160, force_terminal=True)
    )
    reporter.start()
    reporter.update(moment(7, total=None, limit=60.0))
    reporter.note("a note")
    reporter.stop()
    assert "MASE 1.4" in text.getvalue()
    assert "a note" in text.getvalue()


def test_numbers_for_people() -> None:
    assert [clock(s) for s in (0, 61, 3723, float("inf"))] == ["0:00:00", "0:01:01", "1:02:03", "-:--:--"]
    assert [amount(n) for n in (0, 950, 12_345, 4.56e6, 7e9)] == ["0", "950", "12.3k", "4.56M", "7G"]
    assert nats_and_bits({"loss": 0.6931472}) == "loss 0.6931 nats, 1.0000 bits/base"


def test_only_our_own_words_reach_the_user(toy_run, capsys, recwarn) -> None:
    toy_run(max_steps=3, progress=True, val_every=2)
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split()[0] for line in err.splitlines()] == ["step"] * 2
    assert len(recwarn) == 0


def test_a_new_column_keeps_the_older_rows(tmp_path) -> None:
    log = MetricsLog(tmp_path / "m.csv")
    log.add({"step": 1, "loss": 0.1})
    log.add({"step": 2, "loss": 0.2, "val_loss": 0.3})
    log.add({"step": 3, "val_loss": None})
    log.flush(to_disk=True)
    assert (tmp_path / "m.csv").read_text() == "step,loss,val_loss\n1,0.1,\n2,0.2,0.3\n3,,\n"


@pytest.mark.parametrize("tail", ["", "5,0.", "4,0.4", "4,0.4\n5,0.5\n", "x,y\n", "4,0.4,,,\n"])
def test_a_resumed_log_keeps_the_rows_up_to_its_step(tmp_path, tail: str) -> None:
    path = tmp_path / "m.csv"
    path.write_text("step,loss\n1,0.1\n2,0.2\n3,0.3\n" + tail)
    log = MetricsLog(path, after_step=2)
    log.add({"step": 3, "loss": 0.9})
    log.flush()
    assert [(row["step"], row["loss"]) for row in read_rows(path)] == [("1", "0.1"), ("2", "0.2"), ("3", "0.9")]


def test_memory_does_not_grow_with_the_steps(toy_run, toy) -> None:
    import psutil

    used = []

    class Watched(toy.ToyModel):
        def training_step(self, batch, batch_idx):
            if batch_idx in (100, 400):
                used.append(psutil.Process().memory_info().rss)
            return self.loss(batch)

    toy_run(Watched(), max_steps=401)
    assert used[1] - used[0] < 8 << 20
