"""`genomamba classify` on files as users have them: order, ids, coordinates, bounds, interruptions."""

from __future__ import annotations

import gzip
import itertools
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pybigtools
import pytest
import torch
from Bio import SeqIO
from Bio.Seq import Seq
from Bio.SeqRecord import SeqRecord
from hypothesis import given, settings
from hypothesis import strategies as st

from genomamba import tokens
from genomamba.classifier.network import SequenceClassifier
from genomamba.commands.classify import run_classify
from genomamba.prediction import classified, shown_progress
from genomamba.prediction.predictor import Predictor
from genomamba.prediction.record_windows import RecordWindow, record_windows, window_starts
from genomamba.prediction.rows import Least, Predictions, decide
from genomamba.prediction.stretches import record_stretches
from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes.fasta import FastaPiece


def _pieces(records: list[str], piece: int) -> list[FastaPiece]:
    found = []
    for index, text in enumerate(records):
        bases = np.frombuffer(text.encode(), np.uint8)
        for offset in range(0, len(text), piece):
            part = bases[offset : offset + piece]
            found.append(FastaPiece(f"r{index}", "", index, offset, part, offset + piece >= len(text), 1))
    return found


@settings(deadline=None, max_examples=60)
@given(
    records=st.lists(st.text(alphabet="ACGTN", min_size=1, max_size=70), min_size=1, max_size=4),
    window=st.integers(1, 20),
    share=st.floats(0.05, 1),
    piece=st.integers(1, 30),
)
def test_windows_lie_alike_from_both_ends_however_the_file_was_cut(
    records: list[str], window: int, share: float, piece: int
) -> None:
    stride = max(1, int(window * share))
    found = list(record_windows(record_stretches(_pieces(records, piece)), window, stride))
    assert [w.record for w in found if w.is_last] == [f"r{index}" for index in range(len(records))]
    for index, text in enumerate(records):
        own = [w for w in found if w.record == f"r{index}"]
        places = [(w.start, w.end) for w in own]
        assert places == sorted({(len(text) - end, len(text) - start) for start, end in places})
        assert {end - start for start, end in places} == {min(window, len(text))}
        assert (places[0][0], places[-1][1]) == (0, len(text))
        assert all(0 < after[0] - before[0] <= stride for before, after in itertools.pairwise(places))
        assert len(places) <= -(-max(len(text) - window, 0) // stride) + 2
        assert [tokens.decode(w.ids) for w in own] == [text[start:end] for start, end in places]
        assert sum(w.new_known for w in own) == len(text) - text.count("N")


def test_windows_are_spread_evenly_but_for_two_in_the_middle_where_their_room_is_odd() -> None:
    assert window_starts(16, window=4, stride=4) == [0, 4, 8, 12]
    assert window_starts(17, window=4, stride=4) == [0, 3, 6, 7, 10, 13]
    assert window_starts(4, window=4, stride=2) == window_starts(0, window=4, stride=2) == [0]


def test_a_confidence_that_is_just_asked_for_is_enough() -> None:
    p = np.array([[0.25, 0.75], [0.5, 0.5], [np.nan, np.nan]])
    predicted, reasons = decide(("a", "b"), p, np.full(3, np.nan), Least(0.75), ["", "", "too short"])
    assert predicted == ["b", "abstain", "abstain"]
    assert reasons == ["", "confidence below 0.75", "too short"]
    predicted, reasons = decide(
        ("a", "b"), p, np.array([0.009, 0.01, np.nan]), Least(0.75, 0.01), ["", "", "too short"]
    )
    assert predicted == ["abstain"] * 3
    assert reasons == ["typicality below 0.01", "confidence below 0.75", "too short"]


def test_a_row_has_the_length_of_its_own_stretch() -> None:
    starts, ends = np.array([0, 40]), np.array([50, 90])
    rows = Predictions(
        ("a", "b"),
        ["r"] * 2,
        starts,
        ends,
        ["+"] * 2,
        np.zeros(2),
        ["a"] * 2,
        np.array([[0.8, 0.2]] * 2),
        [""] * 2,
        np.ones(2),
    )
    assert list(rows.columns()["length"]) == [50, 50]


def test_a_stride_that_skips_bases_is_refused() -> None:
    for stride in (0, 11):
        with pytest.raises(ValueError, match="stride"):
            list(record_windows([], 10, stride))


def test_windows_wait_for_a_buffer_of_some_megabase(bundle: Path) -> None:
    predictor = Predictor(SequenceClassifier.from_bundle(bundle), torch.device("cpu"))
    unknown = np.full(1_000, tokens.N, np.uint8)
    windows = [RecordWindow(f"r{i}", 0, 1_000, unknown, 0, 0, True) for i in range(3_000)]
    assert [len(rows) for rows in classified.classify_windows(windows, predictor)] == [1_049, 1_049, 902]


def _expected(network: SequenceClassifier, text: str, starts: tuple[int, ...] = (0,)) -> np.ndarray:
    """The definition, by hand: windows of 64 from these places on, weighted by their known bases."""
    predictor = Predictor(network, torch.device("cpu"))
    parts = [text[i : i + 64].upper() for i in starts]
    known = np.array([sum(part.count(base) for base in "ACGT") for part in parts])
    p = predictor.probabilities([tokens.encode(part) for part in parts])
    known[known < classified.MIN_BASES] = 0
    return (p * known[:, None]).sum(0) / known.sum()


def test_a_table_by_hand(
    bundle: Path, write_fasta: Callable[..., Path], make_bases: Callable[[int, int], str], tmp_path: Path
) -> None:
    records = {
        "long": make_bases(200, 1),
        "one": "A",
        "all_n": "N" * 100,
        "half 1/2|x": make_bases(30, 2).lower() + "N" * 30,
        "exact": make_bases(64, 3),
    }
    out = tmp_path / "out.tsv"
    result = run_classify(model=bundle, fasta=write_fasta(records), out=out)
    table = pd.read_csv(out, sep="\t")
    assert table["seq_id"].tolist() == ["long", "one", "all_n", "half", "exact"]
    assert table["start"].tolist() == [0] * 5
    assert table["end"].tolist() == table["length"].tolist() == [200, 1, 100, 60, 64]
    assert table["n_frac"].tolist() == [0, 0, 1, 0.5, 0]
    assert table["reason"].fillna("").tolist() == ["", "too short", "no known base", "", ""]
    assert table["predicted"][1:3].tolist() == ["abstain", "abstain"]
    network = SequenceClassifier.from_bundle(bundle)
    starts = {"long": (0, 46, 90, 136)}
    for row, name in ((0, "long"), (3, "half 1/2|x"), (4, "exact")):
        text = records[name]
        found = table.loc[row, ["prob_human", "prob_E. coli", "prob_x,y"]].to_numpy(float)
        assert found == pytest.approx(_expected(network, text, starts.get(name, (0,))), abs=2e-6)
        assert table["predicted"][row] == network.config.classes[found.argmax()]
        assert table["confidence"][row] == pytest.approx(found.max(), abs=1e-6)
    assert result["rows"] == 5
    assert result["bases"] == 425


def test_windows_keep_their_coordinates(
    bundle: Path, write_fasta: Callable[..., Path], make_bases: Callable[[int, int], str], tmp_path: Path
) -> None:
    text = make_bases(150, 1)
    fasta = write_fasta({"a": text, "b": text[:20]})
    for name in ("out.csv", "out.bed"):
        run_classify(model=bundle, fasta=fasta, out=tmp_path / name, per_window=True, stride=40)
    table = pd.read_csv(tmp_path / "out.csv")
    expected = [("a", 0, 64), ("a", 29, 93), ("a", 57, 121), ("a", 86, 150), ("b", 0, 20)]
    assert list(zip(table["seq_id"], table["start"], table["end"], strict=True)) == expected
    network = SequenceClassifier.from_bundle(bundle)
    for row, (_, start, end) in enumerate(expected[:4]):
        found = table.loc[row, ["prob_human", "prob_E. coli", "prob_x,y"]].to_numpy(float)
        assert found == pytest.approx(_expected(network, text[start:end]), abs=2e-6)
    bed = [line.split("\t") for line in (tmp_path / "out.bed").read_text().splitlines()]
    assert [(line[0], int(line[1]), int(line[2])) for line in bed] == expected


def test_buffers_and_batches_change_nothing(
    bundle: Path,
    write_fasta: Callable[..., Path],
    make_bases: Callable[[int, int], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lengths = np.random.default_rng(0).integers(1, 300, 40)
    fasta = write_fasta({f"r{i}": make_bases(int(n), i) for i, n in enumerate(lengths)})
    run_classify(model=bundle, fasta=fasta, out=tmp_path / "large.csv")
    monkeypatch.setattr(classified, "_BUFFER_WINDOWS", 3)
    run_classify(model=bundle, fasta=fasta, out=tmp_path / "small.csv", batch_bases=70)
    large, small = pd.read_csv(tmp_path / "large.csv"), pd.read_csv(tmp_path / "small.csv")
    assert large["seq_id"].tolist() == small["seq_id"].tolist() == [f"r{i}" for i in range(40)]
    numbers = ["n_frac", "prob_human", "prob_E. coli", "prob_x,y"]
    np.testing.assert_allclose(large[numbers], small[numbers], atol=2e-6)


def test_both_strands_and_thresholds(
    bundle: Path, write_fasta: Callable[..., Path], make_bases: Callable[[int, int], str], tmp_path: Path
) -> None:
    text = make_bases(64, 5)
    turned = tokens.decode(tokens.reverse_complement(tokens.encode(text)))
    fasta = write_fasta({"a": text, "b": turned})
    run_classify(model=bundle, fasta=fasta, out=tmp_path / "out.csv", both_strands=True, min_confidence=1.0)
    table = pd.read_csv(tmp_path / "out.csv")
    assert table["strand"].tolist() == [".", "."]
    assert table["predicted"].tolist() == ["abstain", "abstain"]
    assert table["prob_human"][0] == pytest.approx(table["prob_human"][1], abs=2e-6)
    assert table["reason"][0] == "confidence below 1"


def test_repeated_ids_and_gzip_are_taken_as_they_come(
    bundle: Path, make_bases: Callable[[int, int], str], tmp_path: Path
) -> None:
    path = tmp_path / "x.fa.gz"
    with gzip.open(path, "wt") as file:
        file.write("".join(f">same {i}\n{make_bases(40, i)}\n" for i in range(3)))
    run_classify(model=bundle, fasta=path, out=tmp_path / "out.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["seq_id"] for row in rows] == ["same"] * 3
    assert len({row["prob_human"] for row in rows}) == 3


@pytest.mark.parametrize("length", [63, 64, 65, 127, 128, 129, 191, 192, 193, 1000])
def test_a_record_and_its_reverse_complement_have_the_same_class(
    length: int, bundle: Path, write_fasta: Callable[..., Path], make_bases: Callable[[int, int], str], tmp_path: Path
) -> None:
    text = "A" * (length // 3) + make_bases(length - length // 3, length)
    fasta = write_fasta({"forward": text, "turned": str(Seq(text).reverse_complement())})
    run_classify(model=bundle, fasta=fasta, out=tmp_path / "out.jsonl", both_strands=True)
    one, other = (json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines())
    names = [name for name in one if name.startswith("prob_")]
    assert [one[name] for name in names] == pytest.approx([other[name] for name in names], abs=1e-5)
    assert max(one[name] for name in names) < 1 - 1e-3  # probabilities that say something


def test_a_record_without_bases_has_a_row_that_abstains(
    bundle: Path, make_bases: Callable[[int, int], str], tmp_path: Path
) -> None:
    fasta = tmp_path / "reads.fa"
    fasta.write_text(f">a\n{make_bases(80, 1)}\n>none\n>b\n{make_bases(80, 2)}\n>last\n")
    run_classify(model=bundle, fasta=fasta, out=tmp_path / "out.tsv")
    table = pd.read_csv(tmp_path / "out.tsv", sep="\t", keep_default_na=False)
    assert table["seq_id"].tolist() == ["a", "none", "b", "last"]
    assert table["end"].tolist() == table["length"].tolist() == [80, 0, 80, 0]
    assert [name == "abstain" for name in table["predicted"]] == [False, True, False, True]
    assert table["reason"].tolist() == ["", "no bases", "", "no bases"]


@pytest.mark.parametrize("format", ["genbank", "embl"])
def test_a_flat_file_gives_the_table_of_its_fasta(
    format: str, bundle: Path, make_bases: Callable[[int, int], str], tmp_path: Path
) -> None:
    texts = {f"AB00000{number}.1": make_bases(150, number) for number in range(3)}
    records = [
        SeqRecord(Seq(text), id=name, name=name[:-2], description="x", annotations={"molecule_type": "DNA"})
        for name, text in texts.items()
    ]
    for name in (format, "fasta"):
        SeqIO.write(records, tmp_path / f"lake.{name}", name)
        run_classify(model=bundle, fasta=tmp_path / f"lake.{name}", out=tmp_path / f"{name}.tsv")
    assert (tmp_path / f"{format}.tsv").read_bytes() == (tmp_path / "fasta.tsv").read_bytes()


def test_regions_are_classified_as_if_they_were_records_on_their_strand(
    bundle: Path, write_fasta: Callable[..., Path], make_bases: Callable[[int, int], str], tmp_path: Path
) -> None:
    text = make_bases(500, 1)
    other = text.translate(str.maketrans("ACGT", "TGCA"))[::-1]
    fasta, bed = write_fasta({"chr1": text}), tmp_path / "some.bed"
    bed.write_text("1\t100\t200\tlong one\t0\t-\nchr1\t0\t64\tb\t0\t+\nchr1\t300\t330\nchr1\t100\t200\tc\t0\t.\n")
    places = ("chr1:101-200:-", "1:1-64(+)", "chr1:301-330", "chr1:101-200")
    cut = tmp_path / "cut.fa"
    cut.write_text(f">a\n{other[300:400]}\n>b\n{text[:64]}\n>c\n{text[300:330]}\n>d\n{text[100:200]}\n")
    run_classify(model=bundle, fasta=fasta, out=tmp_path / "bed.tsv", bed=bed)
    run_classify(model=bundle, fasta=fasta, out=tmp_path / "named.tsv", regions=places)
    run_classify(model=bundle, fasta=cut, out=tmp_path / "cut.tsv")
    found, named, records = (
        pd.read_csv(tmp_path / f"{n}.tsv", sep="\t", keep_default_na=False) for n in ("bed", "named", "cut")
    )
    assert list(found.columns) == [*records.columns, "name"]
    assert found["name"].tolist() == ["long one", "b", "", "c"]
    assert found[["start", "end", "strand"]].values.tolist() == [
        [100, 200, "-"], [0, 64, "+"], [300, 330, "+"], [100, 200, "+"],
    ]  # fmt: skip
    assert set(found["seq_id"]) == {"chr1"}
    same = [one for one in records.columns if one not in ("seq_id", "start", "end", "strand")]
    pd.testing.assert_frame_equal(found[same], records[same])
    pd.testing.assert_frame_equal(named.drop(columns="name"), found.drop(columns="name"))


def test_windows_of_regions_lie_in_the_genome(
    bundle: Path, write_fasta: Callable[..., Path], make_bases: Callable[[int, int], str], tmp_path: Path
) -> None:
    """In a table, a BED file and a bigWig; a region on the other strand has the windows of the same places."""
    fasta, bed = write_fasta({"b": make_bases(400, 1), "a": make_bases(300, 2)}), tmp_path / "some.bed"
    bed.write_text("a\t100\t230\tone\t0\t-\nb\t10\t60\n")
    run_classify(model=bundle, fasta=fasta, out=tmp_path / "w.tsv", bed=bed, per_window=True)
    table = pd.read_csv(tmp_path / "w.tsv", sep="\t", keep_default_na=False)
    assert table[["seq_id", "start", "end", "strand", "name"]].values.tolist() == [
        ["a", 100, 164, "-", "one"], ["a", 133, 197, "-", "one"], ["a", 166, 230, "-", "one"], ["b", 10, 60, "+", ""],
    ]  # fmt: skip
    run_classify(model=bundle, fasta=fasta, out=tmp_path / "w.bed", bed=bed)
    lines = [line.split("\t") for line in (tmp_path / "w.bed").read_text().splitlines()]
    assert [[*line[:3], line[5]] for line in lines] == [
        [name, str(start), str(end), strand] for name, start, end, strand, _ in
        table[["seq_id", "start", "end", "strand", "name"]].values.tolist()
    ]  # fmt: skip
    run_classify(model=bundle, fasta=fasta, out=tmp_path / "w.bw", bed=bed, track="human")
    with pybigtools.open(str(tmp_path / "w.bw")) as track:
        assert track.chroms() == {"b": 400, "a": 300}
        assert [start for start, _, _ in track.records("a")] == [100, 133, 166]
    run_classify(model=bundle, fasta=fasta, out=tmp_path / "w.gff3", bed=bed)
    assert [line.split("\t")[6] for line in (tmp_path / "w.gff3").read_text().splitlines()[1:]] == ["-", "-", "-", "+"]
    for asked, problem in (
        ({"bed": bed, "regions": ("a",)}, "both name regions"),
        ({"bed": bed, "fasta": Path("-")}, "standard input"),
    ):
        with pytest.raises(UserError, match=problem):
            run_classify(**{"model": bundle, "fasta": fasta, "out": tmp_path / "x.tsv", **asked})


def test_the_sidecar_says_where_the_table_came_from(
    bundle: Path, write_fasta: Callable[..., Path], make_bases: Callable[[int, int], str], tmp_path: Path
) -> None:
    fasta, out = write_fasta({"a": make_bases(50, 0)}), tmp_path / "out.tsv"
    run_classify(model=bundle, fasta=fasta, out=out)
    side = json.loads((tmp_path / "out.tsv.json").read_text())
    assert side["inputs"][0]["path"] == str(fasta)
    assert side["inputs"][0]["size"] == fasta.stat().st_size
    assert side["model"]["xxh3_128"]
    assert side["settings"]["window"] == 64
    assert side["result"]["rows"] == 1
    assert side["versions"]["seqmamba"]


def test_refusals_leave_no_output(
    bundle: Path, write_fasta: Callable[..., Path], make_bases: Callable[[int, int], str], tmp_path: Path
) -> None:
    fasta = write_fasta({"a": make_bases(50, 0)})
    out = tmp_path / "out.tsv"
    protein = tmp_path / "protein.fa"
    protein.write_text(">p\nMKVLAAGIEQ\n>ok\nACGTACGTACGTACGTACGT\n")
    for bad in (
        {"fasta": tmp_path / "missing.fa"},
        {"fasta": protein},
        {"model": tmp_path / "none"},
        {"stride": 65},
        {"device": "abacus"},
    ):
        with pytest.raises(UserError):
            run_classify(**{"model": bundle, "fasta": fasta, "out": out, **bad})
        assert sorted(p.name for p in tmp_path.iterdir()) == ["genome.fa", "protein.fa"]


def test_a_stopped_run_leaves_nothing_and_exits_3(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.tsv"
    command = [sys.executable, "-m", "genomamba", "classify", "--model", str(bundle), "--fasta", "-", "--out", str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdin is not None
        running.stdin.write(b">a\nACGT\n")
        running.stdin.flush()
        deadline = time.monotonic() + 120
        while not any(".partial" in p.name for p in tmp_path.iterdir()):
            assert running.poll() is None, running.stderr.read() if running.stderr else ""
            assert time.monotonic() < deadline
            time.sleep(0.05)
        running.send_signal(signal.SIGTERM)
        assert running.wait(200) == 3
        running.stdin.close()
    assert list(tmp_path.iterdir()) == []


def test_nothing_but_one_buffer_is_held(bundle: Path) -> None:
    """Two hundred megabases of windows pass through, and never more than one buffer of them is alive."""
    predictor = Predictor(SequenceClassifier.from_bundle(bundle), torch.device("cpu"))
    ids = np.full(10**6, tokens.N, np.uint8)
    alive: list[int] = []
    given_out = 0

    def windows():
        nonlocal given_out
        for i in range(200):
            given_out += 1
            yield RecordWindow("long", i * 10**6, (i + 1) * 10**6, ids, 0, 0, i == 199)

    seen = 0
    for rows in classified.classify_windows(windows(), predictor, per_window=True):
        seen += len(rows)
        alive.append(given_out - seen)
    assert seen == 200
    assert max(alive) == 0
    assert len(alive) >= 100  # a buffer of some megabase


def test_compressed_text_is_what_gzip_unpacks(
    bundle: Path, write_fasta: Callable[..., Path], make_bases: Callable[[int, int], str], tmp_path: Path
) -> None:
    fasta = write_fasta({f"r{i}": make_bases(50, i) for i in range(5)})
    for ending in ("tsv", "csv", "jsonl", "bed"):
        for name in (f"a.{ending}", f"b.{ending}.gz", f"C.{ending.upper()}.GZ"):
            run_classify(model=bundle, fasta=fasta, out=tmp_path / name)
        plain = (tmp_path / f"a.{ending}").read_bytes()
        unpacked = subprocess.run(["gzip", "-dc", tmp_path / f"b.{ending}.gz"], capture_output=True, check=True).stdout
        assert unpacked == plain
        assert gzip.decompress((tmp_path / f"C.{ending.upper()}.GZ").read_bytes()) == plain
        assert json.loads((tmp_path / f"b.{ending}.gz.json").read_text())["result"]["rows"] == 5


def test_a_dash_writes_the_table_and_nothing_else_to_standard_output(
    bundle: Path, write_fasta: Callable[..., Path], make_bases: Callable[[int, int], str], tmp_path: Path
) -> None:
    fasta = write_fasta({f"r{i}": make_bases(50, i) for i in range(5)})
    run_classify(model=bundle, fasta=fasta, out=tmp_path / "out.tsv")
    there = sorted(path.name for path in tmp_path.iterdir())
    command = [sys.executable, "-m", "genomamba", "classify", "--model", bundle, "--fasta", fasta, "--out", "-"]
    done = subprocess.run(command, capture_output=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (tmp_path / "out.tsv").read_bytes()
    assert b"5 rows, 250 bases" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == there
    refused = subprocess.run([*command, "--json"], capture_output=True, check=False, text=True)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "both write to standard output" in refused.stderr


def test_off_a_terminal_a_line_now_and_then_tells_how_far_it_is(
    bundle: Path,
    write_fasta: Callable[..., Path],
    make_bases: Callable[[int, int], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fasta = write_fasta({f"r{i}": make_bases(3000, i) for i in range(500)})
    run_classify(model=bundle, fasta=fasta, out=tmp_path / "quiet.tsv")
    assert capsys.readouterr().err == ""  # it took less than half a minute
    monkeypatch.setattr(shown_progress, "_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(classified, "_BUFFER_BASES", 2**18)
    run_classify(model=bundle, fasta=fasta, out=tmp_path / "out.tsv")
    lines = capsys.readouterr().err.splitlines()
    form = r"classified ([\d,]+) records, ([\d.]+) Mb( of (about )?([\d.]+) Mb)?, [\d.]+ Mb/s(, (\d+|-):..:.. left)?"
    found = [re.fullmatch(form, line) for line in lines]
    assert len(found) > 10
    assert all(found), lines
    told = [(int(m[1].replace(",", "")), float(m[2]), float(m[5] or "nan")) for m in found if m]
    assert told == sorted(told, key=lambda row: row[:2])
    assert told[-1] == (500, 1.5, 1.5)
    assert lines[-1].endswith(", 0:00:00 left")
    halfway = next(row for row in told if row[2] == row[2])
    assert halfway[2] == pytest.approx(1.5, rel=0.05)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"window": 8}, "windows of 8 bases never hold the 16 known bases .* larger --window, or --min-bases 8"),
        ({"min_confidence": 1.0}, "'confidence below 1': lower --min-confidence"),
        ({"min_bases": 60}, "'too short': fewer than 60 known bases are not scored, which --min-bases changes"),
    ],
)
def test_where_every_row_abstains_a_hint_says_what_to_change(
    options: dict[str, float],
    words: str,
    bundle: Path,
    write_fasta: Callable[..., Path],
    make_bases: Callable[[int, int], str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fasta = write_fasta({f"r{i}": make_bases(50, i) for i in range(5)})
    result = run_classify(model=bundle, fasta=fasta, out=tmp_path / "out.tsv", **options)
    assert result["counts"] == {"abstain": 5}
    assert re.search(f"hint: every row abstains.* {words}", result["text"])
    assert ("note: windows of 8" in capsys.readouterr().err) == ("window" in options)
    mended = {"window": {"min_bases": 8}, "min_confidence": {"min_confidence": 0.1}, "min_bases": {"min_bases": 16}}
    again = {**options, **mended[next(iter(options))]}
    result = run_classify(model=bundle, fasta=fasta, out=tmp_path / "mended.tsv", **again)
    assert result["hint"] is None
    assert result["counts"].get("abstain", 0) == 0
