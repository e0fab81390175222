"""Sessions for IGV: the genome with an index, and the track, by paths that hold wherever the folder is moved."""

from __future__ import annotations

import gzip
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from pyfaidx import Fasta

from genomamba.cli import cli
from genomamba.commands.classify import run_classify
from genomamba.prediction.igv import check_session, write_session
from mamba_data_prep.errors import UserError

FASTA = ">a\n" + "ACGTTGCATT\n" * 6 + ">b\n" + "GGCATTACGG\n" * 4


@pytest.mark.parametrize("ending", ["bw", "bed", "gff3.gz"])
def test_a_session_names_the_genome_and_the_track(bundle: Path, tmp_path: Path, ending: str) -> None:
    (tmp_path / "data").mkdir()
    fasta, out, session = tmp_path / "data" / "g.fa", tmp_path / f"p.{ending}", tmp_path / "s.xml"
    fasta.write_text(FASTA)
    done = CliRunner().invoke(cli, ["classify", "--model", str(bundle), "--fasta", str(fasta), "--out", str(out),
                                    "--igv", str(session)])  # fmt: skip
    assert done.exit_code == 0, done.output
    root = ElementTree.parse(session).getroot()
    assert root.attrib["genome"] == "data/g.fa"
    assert [one.attrib["path"] for one in root.iter("Resource")] == [f"p.{ending}"]
    index = fasta.with_name("g.fa.fai")
    assert index.read_text() == "a\t60\t3\t10\t11\nb\t40\t72\t10\t11\n"
    with Fasta(str(fasta), rebuild=False, build_index=False) as indexed:  # reads the index that was written
        assert str(indexed["b"][5:12]) == "TACGGGG"


def test_an_index_that_is_there_stays(tmp_path: Path) -> None:
    fasta = tmp_path / "g.fa"
    fasta.write_text(FASTA)
    fasta.with_name("g.fa.fai").write_text("kept")
    write_session(tmp_path / "s.xml", fasta, tmp_path / "p.bw")
    assert fasta.with_name("g.fa.fai").read_text() == "kept"


def test_what_igv_cannot_show_is_refused_before_any_work(bundle: Path, tmp_path: Path) -> None:
    fasta = tmp_path / "g.fa"
    fasta.write_text(FASTA)
    with pytest.raises(UserError, match="output is a table"):
        run_classify(model=bundle, fasta=fasta, out=tmp_path / "p.tsv", igv=tmp_path / "s.xml")
    (tmp_path / "g.fa.gz").write_bytes(gzip.compress(FASTA.encode()))
    with pytest.raises(UserError, match="is plain FASTA"):
        check_session(tmp_path / "s.xml", tmp_path / "g.fa.gz", tmp_path / "p.bw")
    (tmp_path / "g.fq").write_text("@a\nA\n+\nI\n")
    with pytest.raises(UserError, match="this is none"):
        check_session(tmp_path / "s.xml", tmp_path / "g.fq", tmp_path / "p.bw")
    with pytest.raises(UserError, match="in a file"):
        check_session(tmp_path / "s.xml", Path("-"), tmp_path / "p.bw")
    fasta.write_text(">a\nACGT\nAC\nACGTACGT\n")
    with pytest.raises(UserError, match="irregular"):
        write_session(tmp_path / "s.xml", fasta, tmp_path / "p.bw")
