"""One rule for outputs: nothing that exists is replaced unasked, and inputs and other things never are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mamba_data_prep.errors import UserError
from mamba_data_prep.outputs import check_input, check_output, check_output_folder

ENDINGS = (".csv", ".tsv")


def folder_check(path: Path, **options: object) -> None:
    check_output_folder(path, marks=("result.json",), **options)  # pyright: ignore[reportArgumentType]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", ["new.csv", "NEW.TSV"])
def test_a_new_file_is_allowed_and_nothing_is_left_of_the_trial(name: str, tmp_path: Path) -> None:
    check_output(tmp_path / name, endings=ENDINGS)
    assert names(tmp_path) == []


def test_no_output_at_all_is_allowed() -> None:
    check_output(None)
    check_output_folder(None, marks=())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("f.xlsx", ["unknown ending", "found:    .xlsx", ".csv .tsv", "f.csv"]),
        ("f", ["unknown ending", "no ending"]),
        ("nowhere/f.csv", ["cannot be written", "no such folder"]),
        ("file/f.csv", ["cannot be written", "is a file, not a folder"]),
        ("folder.csv", ["a folder of this name"]),
        ("x" * 300 + ".csv", ["cannot be written", "too long"]),
    ],
)
def test_a_file_that_cannot_be_is_refused(name: str, words: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.csv").mkdir()
    for overwrite in (False, True):
        with pytest.raises(UserError) as refused:
            check_output(tmp_path / name, endings=ENDINGS, overwrite=overwrite)
        assert [word for word in words if word not in str(refused.value)] == []


def test_a_file_is_replaced_only_where_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("precious")
    with pytest.raises(UserError, match=r"exists already[\s\S]*add --overwrite to replace it"):
        check_output(path, endings=ENDINGS)
    check_output(path, endings=ENDINGS, overwrite=True)
    assert path.read_text() == "precious"


def test_an_input_is_never_replaced(tmp_path: Path) -> None:
    path, link = tmp_path / "data.csv", tmp_path / "link.csv"
    path.write_text("y\n1\n")
    link.symlink_to(path)
    for out in (path, link):
        with pytest.raises(UserError, match="the output is the input"):
            check_output(out, endings=ENDINGS, inputs=[None, path], overwrite=True)


def test_a_new_or_empty_folder_is_allowed_and_not_made(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    folder_check(tmp_path / "empty")
    folder_check(tmp_path / "a" / "b")
    assert names(tmp_path) == ["empty"]


def test_a_folder_is_replaced_only_if_it_is_an_earlier_result_and_that_is_asked_for(tmp_path: Path) -> None:
    earlier, other = tmp_path / "earlier", tmp_path / "other"
    for folder, name in ((earlier, "result.json"), (other, "letter.txt")):
        folder.mkdir()
        (folder / name).write_text("")
    with pytest.raises(UserError, match=r"exists already[\s\S]*add --overwrite to replace it"):
        folder_check(earlier)
    folder_check(earlier, overwrite=True)
    for overwrite in (False, True):
        with pytest.raises(UserError, match=r"holds other things[\s\S]*letter\.txt"):
            folder_check(other, overwrite=overwrite)


def test_a_folder_that_holds_an_input_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("")
    (tmp_path / "model").mkdir()
    with pytest.raises(UserError, match="is the input, or holds it"):
        folder_check(tmp_path, inputs=[tmp_path / "model"], overwrite=True)


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="a file of this name"):
        folder_check(tmp_path / "file")
    with pytest.raises(UserError, match="is a file, not a folder"):
        folder_check(tmp_path / "file" / "a")


@pytest.mark.parametrize("check", [check_output, folder_check], ids=["file", "folder"])
def test_a_folder_that_is_not_ours_to_write_to_is_refused(check: Callable[[Path], None], unprivileged: Path) -> None:
    check(unprivileged / "open" / "out")
    with pytest.raises(UserError, match="cannot be written: this folder may not be written to"):
        check(unprivileged / "closed" / "out")


def test_an_input_that_is_missing_or_a_folder_is_refused(tmp_path: Path) -> None:
    check_input(None)
    check_input(Path("-"))
    with pytest.raises(UserError, match="no such file"):
        check_input(tmp_path / "no.csv")
    with pytest.raises(UserError, match="is a folder"):
        check_input(tmp_path)
