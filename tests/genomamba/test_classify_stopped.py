"""`genomamba classify` stopped while it works: the rows so far are kept, and the same command goes on after them."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from genomamba.commands.classify import run_classify
from genomamba.prediction import classified
from genomamba.prediction.partial import partial_path
from genomamba.prediction.predictor import Predictor
from genomamba.prediction.writers import FORMATS
from mamba_data_prep.errors import Interrupted, UserError

RESUMED = [ending for ending in FORMATS if ending != ".bw"]


@pytest.fixture
def stopped_after(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function (batches, number) that lets a real signal arrive while a later batch is in the model."""
    real, seen = Predictor.logits, [0]

    def arrange(batches: int, number: signal.Signals = signal.SIGTERM) -> None:
        seen[0] = 0

        def logits(self: Predictor, windows: list[np.ndarray]) -> np.ndarray:
            seen[0] += 1
            if seen[0] == batches + 1:
                os.kill(os.getpid(), number)
            return real(self, windows)

        monkeypatch.setattr(Predictor, "logits", logits)
        monkeypatch.setattr(classified, "_BUFFER_WINDOWS", 3)

    return arrange


@pytest.fixture
def reads(write_fasta: Callable[..., Path], make_bases: Callable[[int, int], str]) -> Path:
    """Twenty records, some longer than the window, one without a base."""
    return write_fasta({f"r{i}": make_bases(20 + 13 * i, i) if i != 7 else "" for i in range(20)})


def table(path: Path) -> list[dict[Any, Any]]:
    """Rows of an output of any format."""
    if path.name.endswith(".parquet"):
        rows = pd.read_parquet(path).to_dict("records")
    elif ".jsonl" in path.name:
        rows = pd.read_json(path, lines=True, compression="infer").to_dict("records")
    else:
        names = None if ".bed" in path.name else "infer"
        separator = "," if ".csv" in path.name else "\t"
        rows = pd.read_csv(path, sep=separator, header=names, compression="infer").to_dict("records")
    assert len(rows) > 0
    return rows


def check_same(rows: list[dict[Any, Any]], others: list[dict[Any, Any]]) -> None:
    """Equal rows; the last digit of a number depends on which windows go through the model together."""
    assert len(rows) == len(others)
    for one, other in zip(rows, others, strict=True):
        assert one == {
            k: pytest.approx(v, abs=3e-6, nan_ok=True) if isinstance(v, float) else v for k, v in other.items()
        }


@pytest.mark.parametrize("per_window", [False, True])
@pytest.mark.parametrize("ending", RESUMED)
def test_a_stopped_run_goes_on_after_its_rows(
    ending: str, per_window: bool, bundle: Path, reads: Path, tmp_path: Path, stopped_after: Callable[..., None]
) -> None:
    whole, out = tmp_path / f"whole{ending}", tmp_path / f"out{ending}"
    asked = {"model": bundle, "fasta": reads, "per_window": per_window}
    run_classify(**asked, out=whole)
    kept = []
    for batches, number in ((2, signal.SIGTERM), (1, signal.SIGINT)):
        stopped_after(batches, number)
        with pytest.raises(Interrupted, match=r"rows are kept in .*out\.partial.*run the same command again") as caught:
            run_classify(**asked, out=out)
        assert ("SIGTERM" if number == signal.SIGTERM else "the keyboard") in str(caught.value)
        assert not out.exists()
        kept.append(table(partial_path(out)))
    assert 0 < len(kept[0]) < len(kept[1])
    stopped_after(10**6)
    result = run_classify(**asked, out=out)
    check_same(table(out), table(whole))
    for rows in kept:
        check_same(rows, table(whole)[: len(rows)])
    side, other = (json.loads(path.with_name(path.name + ".json").read_text())["result"] for path in (out, whole))
    for name in ("rows", "bases", "counts", "reasons"):
        assert side[name] == other[name] == result[name]
    assert sorted(path.name for path in tmp_path.iterdir() if "out" in path.name) == [out.name, f"{out.name}.json"]


def test_rows_taken_over_are_not_classified_again(
    bundle: Path, reads: Path, tmp_path: Path, stopped_after: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_after(4)
    with pytest.raises(Interrupted):
        run_classify(model=bundle, fasta=reads, out=tmp_path / "out.tsv")
    kept = len(pd.read_csv(tmp_path / "out.partial.tsv", sep="\t"))
    assert kept > 3
    given: list[np.ndarray] = []
    real = Predictor.logits
    monkeypatch.setattr(Predictor, "logits", lambda self, windows: given.extend(windows) or real(self, windows))
    run_classify(model=bundle, fasta=reads, out=tmp_path / "out.tsv")
    rows = pd.read_csv(tmp_path / "out.tsv", sep="\t")
    assert given
    assert sum(map(len, given)) < 2 * int(rows["length"][kept:].sum())
    assert min(map(len, given)) >= min(64, int(rows["length"][kept]))


@pytest.mark.parametrize("change", ["model", "fasta", "settings", "rows", "sidecar"])
def test_rows_of_other_work_are_neither_taken_over_nor_lost(
    change: str,
    bundle: Path,
    reads: Path,
    tmp_path: Path,
    stopped_after: Callable[..., None],
    make_bases: Callable[[int, int], str],
) -> None:
    out, kept = tmp_path / "out.tsv", tmp_path / "out.partial.tsv"
    asked = {"model": bundle, "fasta": reads, "out": out}
    stopped_after(2)
    with pytest.raises(Interrupted):
        run_classify(**asked)
    if change == "model":
        copy = tmp_path / "other"
        copy.mkdir()
        for file in bundle.iterdir():
            (copy / file.name).write_bytes(file.read_bytes())
        (copy / "README.md").write_text("another")
        asked["model"] = copy
    elif change == "fasta":
        reads.write_text(reads.read_text() + f">more\n{make_bases(50, 9)}\n")
    elif change == "settings":
        asked["both_strands"] = True
    elif change == "rows":
        kept.write_text(kept.read_text() + "x\n")
    else:
        kept.with_name(kept.name + ".json").write_text("{")
    before = kept.read_bytes()
    stopped_after(10**6)
    with pytest.raises(UserError, match="cannot be gone on with") as caught:
        run_classify(**asked)
    assert caught.value.path == kept
    assert kept.read_bytes() == before
    assert not out.exists()
    run_classify(**asked, overwrite=True)
    assert len(pd.read_csv(out, sep="\t")) == 20 + (change == "fasta")
    assert not kept.exists()


def test_a_bigwig_is_kept_and_begun_again(
    bundle: Path, reads: Path, tmp_path: Path, stopped_after: Callable[..., None]
) -> None:
    out = tmp_path / "out.bw"
    reads.write_text(reads.read_text().replace(">r7\n", ""))
    stopped_after(2)
    with pytest.raises(Interrupted, match="run the same command with --overwrite"):
        run_classify(model=bundle, fasta=reads, out=out)
    assert (tmp_path / "out.partial.bw").stat().st_size > 0
    with pytest.raises(UserError, match="cannot be added to"):
        run_classify(model=bundle, fasta=reads, out=out)
    stopped_after(10**6)
    run_classify(model=bundle, fasta=reads, out=out, overwrite=True)
    assert out.exists()
    assert not (tmp_path / "out.partial.bw").exists()


def test_a_signal_while_rows_are_written_waits_for_their_end(
    bundle: Path, reads: Path, tmp_path: Path, stopped_after: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from genomamba.commands import classify as room

    stopped_after(10**6)
    real = room.table_writer

    @contextmanager
    def interrupting(*arguments: object, **named: object) -> Iterator[object]:
        with real(*arguments, **named) as writer:  # pyright: ignore[reportArgumentType]
            write = writer.write

            def cut(rows: object) -> None:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.01)
                write(rows)  # pyright: ignore[reportArgumentType]

            monkeypatch.setattr(writer, "write", cut)
            yield writer

    monkeypatch.setattr(room, "table_writer", interrupting)
    with pytest.raises(Interrupted):
        run_classify(model=bundle, fasta=reads, out=tmp_path / "out.tsv")
    side = json.loads((tmp_path / "out.partial.tsv.json").read_text())
    assert len(pd.read_csv(tmp_path / "out.partial.tsv", sep="\t")) == side["result"]["rows"] > 0


def test_elsewhere_than_in_the_main_thread_signals_are_left_alone(bundle: Path, reads: Path, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    work = threading.Thread(target=run_classify, kwargs={"model": bundle, "fasta": reads, "out": tmp_path / "o.tsv"})
    work.start()
    work.join()
    assert len(pd.read_csv(tmp_path / "o.tsv", sep="\t")) == 20
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("to", ["out.tsv", "-"])
def test_ctrl_c_at_the_command_line_keeps_the_rows_and_exits_3(to: str, bundle: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "genomamba", "classify", "--model", bundle, "--fasta", "-", "--out", to]
    record = b">r\n" + b"ACGT" * 16 + b"\n"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=tmp_path, **pipes) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        assert running.stderr is not None
        feed = running.stdin

        def fill() -> None:
            with suppress(BrokenPipeError):
                feed.write(record * 40_000)  # a buffer of 2^20 bases, in blocks of 2^20 bytes, and more
                feed.flush()

        threading.Thread(target=fill, daemon=True).start()
        written = b""
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline and running.poll() is None:
            if to == "-":
                written += os.read(running.stdout.fileno(), 1 << 20)
                if written.count(b"\n") > 16_000:
                    break
            elif any(path.stat().st_size > 100_000 for path in tmp_path.glob(".*.partial")):
                break
            else:
                time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        rest, told = running.stdout.read(), running.stderr.read().decode()
        assert running.wait(100) == 3, told
    assert "stopped: by the keyboard; the first 16,384 rows are" in told
    if to == "-":
        text = (written + rest).decode()
    else:
        assert rest == b""
        assert "out.partial.tsv: they can't be added to" in told
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out.partial.tsv", "out.partial.tsv.json"]
        text = (tmp_path / "out.partial.tsv").read_text()
    assert text.count("\n") == 1 + 16_384
    assert text.endswith("\n")


BAD = {"letter": b">bad\nACGT\nAC*T\n>later\nACGT\n", "header": b">\nACGT\n", "cut": b""}


@pytest.fixture
def broken(reads: Path) -> Callable[[str], Path]:
    """A function (kind) -> the twenty records with something that is refused behind them."""

    def make(kind: str) -> Path:
        if kind == "cut":
            path = reads.with_name("reads.fa.gz")
            path.write_bytes(gzip.compress(reads.read_bytes() + b">bad\n" + b"ACGT" * 5_000)[:-20])
            return path
        path = reads.with_name("broken.fa")
        path.write_bytes(reads.read_bytes() + BAD[kind])
        return path

    return make


@pytest.mark.parametrize("per_window", [False, True])
@pytest.mark.parametrize("ending", FORMATS)
def test_a_file_that_is_refused_in_its_middle_keeps_the_rows_before(
    ending: str, per_window: bool, bundle: Path, reads: Path, broken: Callable[[str], Path], tmp_path: Path
) -> None:
    if ending == ".bw":
        reads.write_text(reads.read_text().replace(">r7\n", ""))
    out, whole = tmp_path / f"out{ending}", tmp_path / f"whole{ending}"
    asked = {"model": bundle, "per_window": per_window}
    run_classify(**asked, fasta=reads, out=whole)
    with pytest.raises(UserError, match="amino acid") as caught:
        run_classify(**asked, fasta=broken("letter"), out=out)
    lines = reads.read_text().count("\n")
    assert (caught.value.line, caught.value.record) == (lines + 3, "bad")
    assert f"rows are kept in {partial_path(out)}" in str(caught.value)
    assert not out.exists()
    if ending == ".bw":
        assert partial_path(out).read_bytes() == whole.read_bytes()
    else:
        check_same(table(partial_path(out)), table(whole))
    side = json.loads(Path(f"{partial_path(out)}.json").read_text())
    assert side["result"]["rows"] == json.loads(Path(f"{whole}.json").read_text())["result"]["rows"]


@pytest.mark.parametrize(("kind", "rows"), [("header", 19), ("cut", 20)])
def test_the_records_before_the_one_concerned_are_kept(
    kind: str, rows: int, bundle: Path, broken: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=f"the first {rows} rows are kept in"):
        run_classify(model=bundle, fasta=broken(kind), out=tmp_path / "out.tsv")
    assert len(pd.read_csv(tmp_path / "out.partial.tsv", sep="\t")) == rows


def test_a_refused_file_is_refused_again_and_the_mended_one_begun_anew(
    bundle: Path, reads: Path, broken: Callable[[str], Path], tmp_path: Path
) -> None:
    fasta, out = broken("letter"), tmp_path / "out.tsv"
    kept = []
    for _ in range(2):
        with pytest.raises(UserError, match="the first 20 rows are kept"):
            run_classify(model=bundle, fasta=fasta, out=out)
        kept.append((tmp_path / "out.partial.tsv").read_bytes())
    assert kept[0] == kept[1]
    fasta.write_bytes(reads.read_bytes())
    with pytest.raises(UserError, match="another input"):
        run_classify(model=bundle, fasta=fasta, out=out)
    run_classify(model=bundle, fasta=fasta, out=out, overwrite=True)
    assert out.read_bytes() == kept[0]
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out.tsv", "out.tsv.json"]


def test_a_file_that_is_refused_at_once_leaves_nothing(bundle: Path, tmp_path: Path) -> None:
    fasta = tmp_path / "a.fa"
    fasta.write_text(">bad\nAC*T\n")
    with pytest.raises(UserError) as caught:
        run_classify(model=bundle, fasta=fasta, out=tmp_path / "out.tsv")
    assert "kept" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.fa"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk is simulated by /dev/full")
def test_rows_of_a_disk_that_is_full_are_not_kept(
    bundle: Path, reads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from genomamba.prediction.writers import TableWriter, _Delimited

    monkeypatch.setattr(classified, "_BUFFER_WINDOWS", 3)
    real, calls = _Delimited.write, [0]

    def full(self: TableWriter, rows: Any) -> None:
        calls[0] += 1
        if calls[0] == 3:
            with open("/dev/full", "w", buffering=1) as disk:
                disk.write("x\n")
        real(self, rows)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(_Delimited, "write", full)
    with pytest.raises(UserError, match="disk is full") as caught:
        run_classify(model=bundle, fasta=reads, out=tmp_path / "out.tsv")
    assert "kept" not in str(caught.value)
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("to", ["out.tsv", "-"])
def test_a_refused_file_at_the_command_line_exits_2(
    to: str, bundle: Path, broken: Callable[[str], Path], tmp_path: Path
) -> None:
    command = [
        sys.executable,
        "-m",
        "genomamba",
        "classify",
        "--model",
        bundle,
        "--fasta",
        broken("letter"),
        "--out",
        to,
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "the first 20 rows are" in done.stderr
    text = done.stdout if to == "-" else (tmp_path / "out.partial.tsv").read_text()
    assert text.count("\n") == 21
