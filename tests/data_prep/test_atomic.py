"""Files and folders are whole or absent, whatever fails; what killed writers left is cleared away."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mamba_data_prep.atomic import AtomicDirectory, atomic_write, clean_orphans, named_write_errors
from mamba_data_prep.errors import UserError

WRITER = """
import signal, sys, time
from mamba_data_prep.atomic import AtomicDirectory, atomic_write
folder = sys.argv[1]
number = 0
while True:
    number += 1
    with atomic_write(folder + "/file", "wb") as stream:
        for _ in range(20):
            stream.write(bytes([number % 256]) * 10_000)
    with AtomicDirectory(folder + "/folder") as made:
        for name in "ab":
            (made / name).write_bytes(bytes([number % 256]) * 10_000)
    print("x", flush=True)
"""


def test_text_and_bytes(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a.txt") as stream:
        stream.write("é\n")
        assert not (tmp_path / "a.txt").exists()
    with atomic_write(str(tmp_path / "a.bin"), "wb") as stream:
        stream.write(b"\0\r\n")
    assert (tmp_path / "a.txt").read_bytes() == b"\xc3\xa9\n"
    assert (tmp_path / "a.bin").read_bytes() == b"\0\r\n"
    assert sorted(os.listdir(tmp_path)) == ["a.bin", "a.txt"]


def _write_and_fail(path: Path) -> None:
    with atomic_write(path) as stream:
        stream.write("new")
        raise KeyError("x")


def test_error_keeps_the_old_file_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(KeyError):
        _write_and_fail(tmp_path / "a")
    assert (tmp_path / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def _fill_and_fail(path: Path) -> None:
    with AtomicDirectory(path) as folder:
        (folder / "b").write_text("new")
        raise KeyError("x")


def test_folder_appears_whole_and_replaces_the_older_one(tmp_path: Path) -> None:
    for text in ("old", "new"):
        with AtomicDirectory(tmp_path / "a") as folder:
            (folder / "deep").mkdir()
            (folder / "deep" / "b").write_text(text)
        assert (tmp_path / "a" / "deep" / "b").read_text() == text
    with pytest.raises(KeyError):
        _fill_and_fail(tmp_path / "a")
    assert (tmp_path / "a" / "deep" / "b").read_text() == "new"
    assert os.listdir(tmp_path) == ["a"]


def _write(path: Path) -> None:
    with atomic_write(path) as stream:
        stream.write("x")


def _make(path: Path) -> None:
    with AtomicDirectory(path) as folder:
        (folder / "b").write_text("x")


@pytest.mark.parametrize("write", [_write, _make])
def test_missing_folder_is_one_line(write, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written: there is no such folder") as caught:
        write(tmp_path / "no" / "a")
    assert "\n" not in str(caught.value)


def test_file_in_place_of_a_folder_and_the_other_way_round(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="a part of this path is a file"):
        _write(tmp_path / "file" / "a")
    with pytest.raises(UserError, match="there is a folder of this name"):
        _write(tmp_path)
    with pytest.raises(UserError, match="too long"):
        _write(tmp_path / ("x" * 300))


@pytest.mark.parametrize("write", [_write, _make])
def test_read_only_folder_is_one_line(write, unprivileged: Path) -> None:
    with pytest.raises(UserError, match="may not be written to") as caught:
        write(unprivileged / "closed" / "a")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_refusals_are_named(number: int, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written") as caught, named_write_errors(tmp_path / "a"):
        raise OSError(number, os.strerror(number))
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "a") in str(caught.value)


def test_other_errors_are_not_hidden(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Broken pipe"), named_write_errors(tmp_path):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def test_full_disk_keeps_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    script = (
        "import resource, signal, sys\n"
        "from mamba_data_prep.atomic import atomic_write\n"
        "from mamba_data_prep.errors import UserError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    with atomic_write(sys.argv[1]) as stream: stream.write('x' * 5000)\n"
        "except UserError as error: print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", script, tmp_path / "a"], capture_output=True, text=True, check=True)
    assert "cannot be written" in run.stdout
    assert (tmp_path / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def kill_a_writer(folder: Path, delay: float) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, folder], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(delay)
        writer.send_signal(signal.SIGKILL)
    clean_orphans(folder)
    content = (folder / "file").read_bytes()
    assert len(content) == 200_000
    assert len(set(content)) == 1
    parts = [(folder / "folder" / name).read_bytes() for name in "ab"]
    assert parts[0] == parts[1]
    assert sorted(os.listdir(folder)) == ["file", "folder"]


def test_killed_writers_leave_whole_files_and_no_orphans(tmp_path: Path) -> None:
    for delay in (0.0, 0.013):
        kill_a_writer(tmp_path, delay)


@pytest.mark.slow
def test_two_hundred_killed_writers(tmp_path: Path) -> None:
    for step in range(200):
        kill_a_writer(tmp_path, step * 0.00037)


def test_living_writers_are_left_alone(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a") as stream:
        stream.write("x")
        assert clean_orphans(tmp_path) == []
        cleaner = "import sys; from mamba_data_prep.atomic import clean_orphans; print(clean_orphans(sys.argv[1]))"
        run = subprocess.run([sys.executable, "-c", cleaner, tmp_path], capture_output=True, text=True, check=True)
        assert run.stdout == "[]\n"
    assert (tmp_path / "a").read_text() == "x"


def test_a_pid_that_is_used_again_does_not_protect(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a") as stream:
        name = Path(stream.name).name
    host, pid, born, token = name.split(".")[2].split("-")
    gone = [f".a.{host}-{pid}-{int(born) - 5000}-{token}.partial", f".a.{host}-{pid}-{born}-{'0' * 8}.partial"]
    for orphan in gone:
        (tmp_path / orphan).write_text("half")
    assert [p.name for p in clean_orphans(tmp_path)] == sorted(gone)
    assert os.listdir(tmp_path) == ["a"]


def test_files_of_another_machine_are_left_until_they_are_old(tmp_path: Path) -> None:
    orphan = tmp_path / ".a.00000000-1-2-00000000.partial"
    orphan.write_text("half")
    assert clean_orphans(tmp_path) == []
    os.utime(orphan, (0, 0))
    assert clean_orphans(tmp_path) == [orphan]


def test_a_folder_that_was_about_to_be_replaced_is_put_back(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with atomic_write(tmp_path / "name") as stream:
        token = Path(stream.name).name.split(".")[2]
    for name in (f".a.{token[:-8]}{'0' * 8}.replaced", f".b.{token[:-8]}{'0' * 8}.replaced"):
        (tmp_path / name).mkdir()
    clean_orphans(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "name"]


def test_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    for name in (".hidden", "a.partial", ".a.partial", ".a.x-1-2-3.partial"):
        (tmp_path / name).write_text("x")
    assert clean_orphans(tmp_path) == []
    assert clean_orphans(tmp_path / "missing") == []
    assert len(os.listdir(tmp_path)) == 4
