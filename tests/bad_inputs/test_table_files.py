"""Labelled tables that are broken, each refused with file, line and what to do, or read exactly."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import numpy as np
import pytest
from openpyxl import Workbook

from genomamba.classifier.config import FinetuneData
from genomamba.classifier.tasks.labelled_tables import read_table
from genomamba.classifier.tasks.tasks import table_data
from mamba_data_prep.errors import UserError

HEADER = "sequence,label\n"
BROKEN: list[tuple[str, bytes, str, int | None]] = [
    ("nothing", b"", "lacks the column", 1),
    ("only a header", HEADER.encode(), "no rows", None),
    ("no header", b"ACGT,1\nACGA,0\n", "lacks the column", 1),
    ("no label", b"sequence,kind\nACGT,1\n", "lacks the column label", 1),
    ("no sequence", b"dna,label\nACGT,1\n", "lacks the column sequence", 1),
    ("column twice", b"sequence,label,label\nACGT,1,1\n", "repeats a column", 1),
    ("tabs in a .csv", b"sequence\tlabel\nACGT\t1\n", "lacks the column", 1),
    ("missing field", HEADER.encode() + b"ACGT,1\nACGT\n", "number of fields", 3),
    ("extra field", HEADER.encode() + b"ACGT,1,9\n", "number of fields", 2),
    ("empty sequence", HEADER.encode() + b"ACGT,1\n,0\n", "sequence is empty", 3),
    ("blank sequence", HEADER.encode() + b"  ,0\n", "sequence is empty", 2),
    ("empty label", HEADER.encode() + b"ACGT,\n", "label is missing", 2),
    ("label NaN", HEADER.encode() + b"ACGT,1\nACGA,NaN\n", "label is missing", 3),
    ("label NA", HEADER.encode() + b"ACGT,NA\n", "label is missing", 2),
    ("protein", HEADER.encode() + b"MKVLAAG,1\n", "no base", 2),
    ("digit", HEADER.encode() + b"ACG1,1\n", "position 4", 2),
    ("gap", HEADER.encode() + b"AC-GT,1\n", "position 3", 2),
    ("space inside", HEADER.encode() + b"AC GT,1\n", "position 3", 2),
    ("accent", HEADER.encode() + "ACÉT,1\n".encode(), "outside ASCII", 2),
    ("unknown split", b"sequence,label,split\nACGT,1,train\nACGA,0,holdout\n", "split is unknown", 3),
    ("empty split", b"sequence,label,split\nACGT,1,\n", "split is unknown", 2),
    ("latin-1", HEADER.encode() + b"ACGT,\xe9\n", "UTF-8", 2),
    ("utf-16", (HEADER + "ACGT,1\n").encode("utf-16"), "UTF-8", 1),
    ("binary", bytes(range(128, 256)) * 4, "UTF-8", 1),
    ("open quote", HEADER.encode() + b'"ACGT,1\nACGA,0\n', "cannot be read", 2),
    ("text after quote", HEADER.encode() + b'"ACGT"x,1\n', "cannot be read", 2),
    ("cut gzip", gzip.compress(HEADER.encode() + b"ACGT,1\n" * 999, 0)[:-3000], "gzip", 573),
    ("bad gzip", b"\x1f\x8b" + b"\0" * 40, "gzip", 1),
]


@pytest.mark.parametrize(("content", "problem", "line"), [b[1:] for b in BROKEN], ids=[b[0] for b in BROKEN])
def test_a_broken_table_is_refused_by_name_and_line(
    tmp_path: Path, content: bytes, problem: str, line: int | None
) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=problem) as caught:
        read_table(path)
    assert caught.value.path == path
    assert caught.value.line == line
    assert caught.value.fix


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("plain.csv", b"sequence,label\nacgu,x\n"),
        ("mark.csv", b"\xef\xbb\xbfsequence,label\nACGT,x\n"),
        ("semicolons.csv", b"sequence;label\nACGT;x\n"),
        ("other_names.csv", b"id,Seq,Class\n1,ACGT,x\n"),
        ("crlf.csv", b"sequence,label\r\nACGT,x\r\n"),
        ("no_last_newline.csv", b"sequence,label\nACGT,x"),
        ("more_columns.csv", b"id,label,note,sequence\n1,x,,ACGT\n"),
        ("capitals.csv", b"Sequence, Label\nACGT, x\n"),
        ("quoted.csv", b'sequence,label\n"ACGT","x"\n'),
        ("blank_lines.csv", b"sequence,label\n\nACGT,x\n\n"),
        ("tabs.tsv", b"sequence\tlabel\nACGT\tx\n"),
        ("tabs.txt", b"sequence\tlabel\nACGT\tx\n"),
        ("packed.tsv.gz", gzip.compress(b"sequence\tlabel\nACGT\tx\n", mtime=0)),
    ],
)
def test_a_table_that_is_only_odd_is_read(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    (row,) = read_table(path)
    assert (row.bases.tobytes(), row.label, row.split) == (b"ACGT", "x", None)


def test_columns_may_be_named(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("DNA,label,kind\nACGT,7,x\n")
    (row,) = read_table(path, None, "dna", "kind")
    assert (row.bases.tobytes(), row.label) == (b"ACGT", "x")
    with pytest.raises(UserError, match="lacks the column rna") as caught:
        read_table(path, None, "rna")
    assert "--sequence-column" in str(caught.value.fix)


def test_the_first_sheet_of_an_excel_file_is_read(tmp_path: Path) -> None:
    book = Workbook()
    for cells in (["seq", "label"], ["acgt", 1], [None, None], ["GGCC", 0]):
        book.worksheets[0].append(cells)
    path = tmp_path / "t.xlsx"
    book.save(path)
    assert [(r.bases.tobytes(), r.label, r.line) for r in read_table(path)] == [(b"ACGT", "1", 2), (b"GGCC", "0", 4)]
    path.write_bytes(b"PK no book")
    with pytest.raises(UserError, match="not an Excel file"):
        read_table(path)


@pytest.mark.parametrize(("part", "line"), [("xl/workbook.xml", None), ("xl/worksheets/sheet1.xml", 3)])
def test_a_damaged_excel_file_is_refused_wherever_it_is_damaged(tmp_path: Path, part: str, line: int | None) -> None:
    book = Workbook()
    for cells in (["seq", "label"], ["acgt", 1], ["GGCC", 0]):
        book.worksheets[0].append(cells)
    whole, path = tmp_path / "whole.xlsx", tmp_path / "t.xlsx"
    book.save(whole)
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            text = old.read(name)
            if name == part:  # no sheet is named, or the third row has no end
                text = text.replace(b"<sheets>", b"<x>").replace(b"</sheets>", b"</x>")
                text = text[: text.rindex(b"<row")] + b"<row" if b"<row" in text else text
            new.writestr(name, text)
    with pytest.raises(UserError, match="not an Excel file that can be read") as caught:
        read_table(path)
    assert (caught.value.path, caught.value.line) == (path, line)


def test_a_class_too_rare_for_three_splits_is_named_with_what_it_needs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = ["".join(rng.choice(list("ACGT"), 60)) + f",{i % 2}" for i in range(120)]
    path = tmp_path / "t.csv"
    path.write_text(HEADER + "\n".join([*lines, "ACGT" * 15 + ",rare"]) + "\n")
    with pytest.raises(UserError, match="class rare is too rare") as caught:
        table_data([path], FinetuneData())
    assert caught.value.line == 122
    assert "1 different sequence" in str(caught.value.found)
    assert str(caught.value.accepted).startswith("3 or more")
    assert "class rare" in str(caught.value.fix)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_table(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (["ACGTA,1", "ACGTC,1", "ACGTG,1"], "single class"),
        ([f"ACGT{'ACGT'[i % 4] * (i + 1)},{i * 0.37}" for i in range(12)], "as many labels as rows"),
    ],
)
def test_labels_that_are_no_classes_are_refused(tmp_path: Path, rows: list[str], problem: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(HEADER + "\n".join(rows) + "\n")
    with pytest.raises(UserError, match=problem):
        table_data([path], FinetuneData())


def test_splits_that_cannot_be_scored_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("sequence,label,split\nAACC,a,test\nCCAA,b,test\nACAC,a,valid\nGCGC,b,valid\n")
    with pytest.raises(UserError, match="no row is in the train split"):
        table_data([path], FinetuneData())
    path.write_text("sequence,label,split\nAACC,a,train\nCCAA,a,train\nACAC,b,valid\nGCGC,b,test\n")
    with pytest.raises(UserError, match="train split holds no example of class b"):
        table_data([path], FinetuneData())
    with pytest.raises(UserError, match="split column"):
        table_data([path], FinetuneData(), valid=path)
