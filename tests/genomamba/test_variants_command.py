"""`genomamba variants`: the file again with its scores, whatever is in it and whatever stops the run."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from genomamba.cli import cli
from genomamba.commands import variants as room
from genomamba.commands.variants import run_variants
from genomamba.language_model.model import BUNDLE_KIND, GenomeLM
from genomamba.variants.journal import journal_path
from mamba_data_prep.errors import Interrupted, UserError
from mamba_training.bundle import save_bundle

HEAD = '##fileformat=VCFv4.2\n##contig=<ID=1,length=999>\n##INFO=<ID=AC,Number=A,Type=Integer,Description="n">\n'
COLUMNS = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tme\n"


@pytest.fixture(scope="session")
def language_model(make_language_model: Callable[..., GenomeLM], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a small causal model with counts."""
    network = make_language_model()
    assert network.table is not None
    config = {
        "kind": BUNDLE_KIND, "model": network.config.model_dump(), "table": network.table.shape.model_dump(),
        "objective": network.objective.config.model_dump(), "window": 64,
    }  # fmt: skip
    path = tmp_path_factory.mktemp("language model") / "model"
    save_bundle(path, network.state_dict(), config, "# A language model\n")
    return path


@pytest.fixture
def bases(make_bases: Callable[[int, int], str]) -> str:
    return make_bases(1200, 3)


@pytest.fixture
def genome(write_fasta: Callable[..., Path], bases: str) -> Path:
    return write_fasta({"chr1": bases})


def other(base: str) -> str:
    return "ACGT"["ACGT".index(base) - 1]


@pytest.fixture
def calls(tmp_path: Path, bases: str) -> Path:
    """150 SNVs every 7 bases, and in the middle what can and what cannot be scored beside each other."""
    rows = [f"1\t{p}\t.\t{bases[p - 1]}\t{other(bases[p - 1])}\t.\tPASS\tAC=1\tGT\t0|1" for p in range(10, 1060, 7)]
    at = 1060
    rows += [
        f"1\t{at}\trs 1;x\t{bases[at - 1].lower()}\t{other(bases[at - 1])},<DEL>,*\t1e3\tq10;s50\t.\tGT:GQ\t0/1:7",
        f"1\t{at + 1}\t.\t{bases[at]}\t.\t.\t.\tMAMBA_LLR=7.000000;AC=3;MAMBA_REASON=symbolic;DB\tGT\t0",
        f"1\t{at + 2}\t.\t{other(bases[at + 1])}\tA\t.\t.\tDB\tGT\t.",
        "2\t5\t.\tA\tC\t.\t.\tDB\tGT\t.",
    ]
    path = tmp_path / "calls.vcf"
    path.write_text(HEAD + COLUMNS + "\n".join(rows) + "\n")
    return path


@pytest.fixture
def asked(language_model: Path, genome: Path, calls: Path) -> dict[str, Path | int]:
    return {"model": language_model, "fasta": genome, "vcf": calls, "window": 32}


def lines(path: Path) -> list[str]:
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode().splitlines()


def test_every_field_but_info_is_as_it_was(asked: dict, calls: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.vcf"
    result = run_variants(**asked, out=out)
    before, after = lines(calls), lines(out)
    own = [line for line in after if line.startswith("##INFO=<ID=MAMBA_")]
    assert len(own) == 6
    assert all("Number=A" in line for line in own)
    assert [line for line in after if line.startswith("#") and line not in own] == before[:4]
    for one, two in zip(before[4:], after[10:], strict=True):
        theirs, ours = one.split("\t"), two.split("\t")
        assert (ours[:7], ours[8:]) == (theirs[:7], theirs[8:])
        kept = [field for field in theirs[7].split(";") if "MAMBA_" not in field and field != "."]
        assert ours[7].split(";")[: len(kept)] == (kept or ours[7].split(";")[:0])
    assert after[-4].split("\t")[7].endswith(";MAMBA_REASON=.,symbolic,overlapping_deletion")
    assert after[-4].split("\t")[7].split(";")[0].count(",") == 2
    assert after[-3].split("\t")[7] == "AC=3;DB"
    assert after[-2].split("\t")[7] == "DB;MAMBA_REASON=reference_mismatch"
    assert after[-1].split("\t")[7] == "DB;MAMBA_REASON=no_contig"
    assert (result["records"], result["alleles"]) == (154, 151)
    assert result["contigs"] == {"1": "chr1", "2": None}
    assert result["reasons"] == {
        "symbolic": 1, "overlapping_deletion": 1, "no_alternative": 1, "reference_mismatch": 1, "no_contig": 1,
    }  # fmt: skip


def test_what_a_user_should_know_is_said(asked: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_variants(**asked, out=tmp_path / "out.vcf")
    said = capsys.readouterr().err
    for words in (
        "read from the genome: 1 as chr1", "has no contig 2; it has chr1", "1 has 999 bases in the header and 1,200",
        "REF is not what the genome has for 1 alleles", "line 157: 1:1062 ",
    ):  # fmt: skip
        assert words in said


@pytest.mark.parametrize("ending", [".vcf.gz", ".tsv", ".tsv.gz"])
def test_every_format_has_the_same_scores(ending: str, asked: dict, tmp_path: Path) -> None:
    plain, out = tmp_path / "out.vcf", tmp_path / f"other{ending}"
    run_variants(**asked, out=plain)
    run_variants(**asked, out=out)
    assert json.loads(out.with_name(out.name + ".json").read_text())["result"]["alleles"] == 151
    assert not journal_path(out).exists()
    if ending == ".vcf.gz":
        assert lines(out) == lines(plain)
        assert (tmp_path / "other.vcf.gz.tbi").exists()
        return
    rows = [line.split("\t") for line in lines(out)]
    assert rows[0][5:8] == ["llr", "llr_forward", "llr_reverse"]
    scores = {(row[1], row[4]): row[5] for row in rows[1:] if row[5]}
    assert len(scores) == 151
    records = [line.split("\t") for line in lines(plain) if line[0] != "#"]
    for record in records:
        fields = dict(field.partition("=")[::2] for field in record[7].split(";"))
        for allele, score in zip(record[4].split(","), fields.get("MAMBA_LLR", "").split(","), strict=False):
            assert scores.get((record[1], allele), "") == score.replace(".", "", score == ".")
    reasons = [row[10] for row in rows[1:] if row[10]]
    assert reasons == ["symbolic", "overlapping_deletion", "no_alternative", "reference_mismatch", "no_contig"]


def test_htslib_reads_what_is_written(asked: dict, tmp_path: Path) -> None:
    pysam = pytest.importorskip("pysam")
    run_variants(**asked, out=tmp_path / "out.vcf.gz")
    with pysam.VariantFile(str(tmp_path / "out.vcf.gz")) as file:
        found = [record.pos for record in file.fetch("1", 499, 600)]
        assert found == [p for p in range(10, 1060, 7) if 500 <= p <= 600]
        record = next(file.fetch("1", 1059, 1060))
        assert [score is None for score in record.info["MAMBA_LLR"]] == [False, True, True]
        assert record.info["MAMBA_REASON"] == (".", "symbolic", "overlapping_deletion")


def test_records_out_of_order_are_written_so_without_an_index(asked: dict, calls: Path, tmp_path: Path) -> None:
    text = lines(calls)
    calls.write_text("\n".join([*text[:4], text[9], text[5]]) + "\n")
    out = tmp_path / "out.vcf.gz"
    (tmp_path / "out.vcf.gz.tbi").write_bytes(b"of an older file")
    result = run_variants(**asked, out=out)
    assert "no tabix index: the records are not sorted" in result["notes"][-1]
    assert not (tmp_path / "out.vcf.gz.tbi").exists()
    assert [line.split("\t")[1] for line in lines(out)[-2:]] == [text[9].split("\t")[1], text[5].split("\t")[1]]


@pytest.mark.slow
def test_a_killed_run_goes_on_and_gives_the_same_file(asked: dict, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole.vcf.gz", tmp_path / "out.vcf.gz"
    run_variants(**asked, out=whole)
    command = [
        *(sys.executable, "-m", "genomamba", "variants", "--model", str(asked["model"]), "--window", "32"),
        *("--fasta", str(asked["fasta"]), "--vcf", str(asked["vcf"]), "--out", str(out), "--batch-bases", "64"),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as started:
        until = time.monotonic() + 120
        while not (journal_path(out).exists() and journal_path(out).read_bytes().count(b"\n") >= 2):
            assert started.poll() is None
            assert time.monotonic() < until
            time.sleep(0.002)
        started.kill()
    assert not out.exists()
    with journal_path(out).open("ab") as file:
        file.write(b"[[[0.1,0.2")  # as if the kill had come in the middle of a line
    with pytest.raises(UserError, match="holds the scores of a stopped run") as caught:
        run_variants(**asked, out=out, batch_bases=64)
    assert "--resume" in str(caught.value.fix)
    with pytest.raises(UserError, match="are of other work") as caught:
        run_variants(**{**asked, "window": 30}, out=out, batch_bases=64, resume=True)
    assert caught.value.found == "another window"
    fresh = tmp_path / "fresh.vcf.gz"
    run_variants(**asked, out=fresh, batch_bases=64)
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=True)
    assert "going on after the scores of " in done.stderr
    assert out.read_bytes() == fresh.read_bytes()
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out.vcf.gz", "out.vcf.gz.json", "out.vcf.gz.tbi"]
    assert not list(tmp_path.glob(".*partial"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_keeps_its_scores_and_computes_none_twice(
    number: signal.Signals, asked: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, portions = room.score_variants, []

    def score(variants: list, *more: object) -> list:
        portions.append(len(variants))
        if len(portions) == 2:
            os.kill(os.getpid(), number)
        return real(variants, *more)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(room, "score_variants", score)
    out = tmp_path / "out.tsv"
    with pytest.raises(Interrupted, match=r"first 64 records are kept in .*out\.tsv\.partial: .* with --resume"):
        run_variants(**asked, out=out)
    assert not out.exists()
    run_variants(**asked, out=out, resume=True)
    assert portions == [64, 64, 64, 26]
    run_variants(**asked, out=tmp_path / "whole.tsv")
    assert out.read_bytes() == (tmp_path / "whole.tsv").read_bytes()


def test_scores_that_lie_there_are_replaced_when_asked(asked: dict, tmp_path: Path) -> None:
    out = tmp_path / "out.tsv"
    journal_path(out).write_text("nothing of sense\n")
    with pytest.raises(UserError, match="the file is damaged"):
        run_variants(**asked, out=out, resume=True)
    run_variants(**asked, out=out, overwrite=True)
    assert not journal_path(out).exists()


def test_standard_input_and_output(asked: dict, calls: Path, tmp_path: Path) -> None:
    run_variants(**asked, out=tmp_path / "out.vcf")
    command = [sys.executable, "-m", "genomamba", "variants", "--model", str(asked["model"]), "--window", "32"]
    command += ["--fasta", str(asked["fasta"]), "--vcf", "-", "--out", "-"]
    done = subprocess.run(command, input=gzip.compress(calls.read_bytes()), capture_output=True, check=True)
    assert done.stdout == (tmp_path / "out.vcf").read_bytes()
    assert b"154 records, 151 alleles scored" in done.stderr


def test_a_header_alone_gives_a_header(asked: dict, calls: Path, tmp_path: Path) -> None:
    calls.write_text(HEAD + COLUMNS)
    result = run_variants(**asked, out=tmp_path / "out.vcf.gz")
    assert (result["records"], result["alleles"], result["notes"]) == (0, 0, [])
    assert lines(tmp_path / "out.vcf.gz")[-1] == COLUMNS[:-1]


def test_a_broken_record_is_told_before_anything_is_scored(
    asked: dict, calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls.write_text(calls.read_text() + "1\t7\n")
    monkeypatch.setattr(room, "score_variants", lambda *_: pytest.fail("scored"))
    with pytest.raises(UserError, match="wrong number of columns") as caught:
        run_variants(**asked, out=tmp_path / "out.vcf")
    assert caught.value.line == 159
    assert {path.name for path in tmp_path.iterdir()} == {"calls.vcf", "genome.fa"}


def test_a_classifier_is_refused(asked: dict, bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a language model"):
        run_variants(**{**asked, "model": bundle}, out=tmp_path / "out.vcf")


def test_the_command_says_what_it_did(asked: dict, tmp_path: Path) -> None:
    from click.testing import CliRunner

    options = [f"--{name}={value}" for name, value in asked.items()]
    done = CliRunner().invoke(cli, ["variants", *options, f"--out={tmp_path / 'o.tsv'}", "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["alleles"] == 151
