"""Random access: in place and from flat copies, never from a stale index, from several processes at once."""

from __future__ import annotations

import gzip
import multiprocessing
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pyfaidx
import pytest

from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes.genome import Genome
from mamba_data_prep.genomes.index import FastaIndex, UnknownFinder
from mamba_data_prep.provenance import fingerprint


def written(path: Path, records: dict[str, str], width: int = 7, end: str = "\n") -> Path:
    with path.open("w", newline="") as stream:
        for name, bases in records.items():
            stream.write(f">{name}{end}")
            stream.writelines(bases[i : i + width] + end for i in range(0, len(bases), width))
    return path


def everything(genome: Genome) -> dict[str, str]:
    return {r.name: genome.fetch(r.name, 0, r.length).tobytes().decode() for r in genome.records}


def settle(path: Path) -> None:
    """Makes the file look as if it had been written a while ago, which is when its signature is trusted."""
    os.utime(path, (1_000_000_000, 1_000_000_000))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has a cache of its own."""
    monkeypatch.setenv("SEQMAMBA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def sure_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's clock tells any two changes apart, so an index made now is trusted at once."""
    monkeypatch.setattr("mamba_data_prep.genomes.index._CLOCK_GRAIN", -1)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("width", [1, 7, 60, 10_000])
def test_index_is_the_one_that_pyfaidx_writes(width: int, end: str, make_bases, tmp_path: Path) -> None:
    records = {
        "one": make_bases(1000, 1),
        "two": make_bases(61, 2),
        "three": make_bases(7, 3),
        "four": make_bases(1, 4),
    }
    path = written(tmp_path / "a.fa", records, width, end)
    genome = Genome.open(path)
    assert everything(genome) == records
    shutil.copy(path, tmp_path / "b.fa")
    pyfaidx.Faidx(str(tmp_path / "b.fa")).close()
    assert genome.fai() == (tmp_path / "b.fa.fai").read_text()
    assert not (tmp_path / "a.fa.fai").exists()


def test_layout_is_found_across_blocks(make_bases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = {f"r{i}": make_bases(1 + i * 13 % 97, i) for i in range(60)}
    path = written(tmp_path / "a.fa", records, 10)
    whole = Genome.open(path).fai()
    for size in (1, 2, 3, 7, 11, 64):
        monkeypatch.setattr("mamba_data_prep.bytestream.BLOCK", size)
        genome = Genome.open(path, tmp_path / f"cache{size}")
        assert (genome.fai(), everything(genome)) == (whole, records)


def test_long_lines_over_many_blocks(make_bases, tmp_path: Path) -> None:
    records = {"a": make_bases(5_000_000, 1), "b": make_bases(3, 2)}
    for name in ("a.fa", "b.fa.gz"):
        path = written(tmp_path / name, records, 4_000_000)
        if name.endswith(".gz"):
            path.write_bytes(gzip.compress(path.read_bytes(), 1))
        genome = Genome.open(path)
        assert everything(genome) == records
        assert genome.fetch("a", 3_999_990, 4_000_010).tobytes().decode() == records["a"][3_999_990:4_000_010]


def test_foreign_index_is_not_trusted(tmp_path: Path) -> None:
    path = written(tmp_path / "a.fa", {"a": "ACGTACGTAC", "b": "GGGTTTCC"})
    (tmp_path / "a.fa.fai").write_text("a\t10\t3\t5\t6\nb\t8\t99\t5\t6\n")
    assert everything(Genome.open(path)) == {"a": "ACGTACGTAC", "b": "GGGTTTCC"}


def test_second_opening_reads_nothing(sure_clock: None, tiny_genome: Path) -> None:
    seen: list[tuple[int, int]] = []
    first = Genome.open(tiny_genome, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] == tiny_genome.stat().st_size
    seen.clear()
    again = Genome.open(tiny_genome, progress=lambda done, total: seen.append((done, total)))
    assert not seen
    assert again.fingerprint == first.fingerprint == fingerprint(tiny_genome)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("trusting", [False, True])
@pytest.mark.parametrize("change", ["size", "content", "content_and_time_restored", "replaced", "line_width"])
def test_changed_file_is_indexed_again(
    change: str, trusting: bool, compressed: bool, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if trusting:
        request.getfixturevalue("sure_clock")

    def write(to: Path, records: dict[str, str], width: int = 7) -> None:
        written(to, records, width)
        if compressed:
            to.write_bytes(gzip.compress(to.read_bytes(), 0, mtime=0))

    path = tmp_path / "a.fa"
    write(path, {"a": "ACGTACGTACGTACGT", "b": "TTTTTTTTT"})
    settle(path)
    assert everything(Genome.open(path))["a"] == "ACGTACGTACGTACGT"
    before = path.stat()
    changed = {"a": "ACGTACGTACGTACGA", "b": "CTTTTTTTT"}
    if change == "size":
        changed["a"] += "ACG"
        write(path, changed)
    elif change == "replaced":
        write(tmp_path / "new.fa", changed)
        settle(tmp_path / "new.fa")
        os.replace(tmp_path / "new.fa", path)
    else:
        write(path, changed, 16 if change == "line_width" else 7)
    if change == "content_and_time_restored":
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert everything(Genome.open(path)) == changed


def test_touched_file_keeps_its_index(sure_clock: None, tiny_genome: Path, cache: Path) -> None:
    first = Genome.open(tiny_genome)
    (index,) = cache.glob(f"{tiny_genome.name}-*/index.npz")
    stamp = FastaIndex.load(index)
    settle(tiny_genome)
    assert everything(Genome.open(tiny_genome)) == everything(first)
    again = FastaIndex.load(index)
    assert stamp is not None
    assert again is not None
    assert again.content == stamp.content
    assert again.signature != stamp.signature


def test_young_files_are_hashed_again(tiny_genome: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for grain, settled in (10**18, False), (-1, True):  # nanoseconds within which two changes may look like one
        monkeypatch.setattr("mamba_data_prep.genomes.index._CLOCK_GRAIN", grain)
        Genome.open(tiny_genome)
        (path,) = cache.glob(f"{tiny_genome.name}-*/index.npz")
        index = FastaIndex.load(path)
        assert index is not None
        assert index.settled == settled


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "rubbish", "version"])
def test_damaged_index_is_made_again(damage: str, sure_clock: None, tiny_genome: Path, cache: Path) -> None:
    expected = everything(Genome.open(tiny_genome))
    (path,) = cache.glob(f"{tiny_genome.name}-*/index.npz")
    data = path.read_bytes()
    middle = data.index(b"records.npy") + 140
    path.write_bytes({
        "truncate": data[: len(data) // 2],
        "flip": data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :],
        "empty": b"",
        "rubbish": b"not an index",
        "version": data.replace(b'"format": 1', b'"format": 9'),
    }[damage])  # fmt: skip
    assert everything(Genome.open(tiny_genome)) == expected


def test_lost_or_short_flat_copy_is_made_again(sure_clock: None, tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "flat.fa.gz"
    path.write_bytes(gzip.compress(b">a\nACGT\nAC\n"))
    for damage in (Path.unlink, lambda copy: copy.write_bytes(b"ACG")):
        assert everything(Genome.open(path)) == {"a": "ACGTAC"}
        (copy,) = cache.glob("flat.fa.gz-*/bases-*")
        damage(copy)
        assert everything(Genome.open(path)) == {"a": "ACGTAC"}


def test_older_flat_copy_is_removed(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "grows.fa.gz"
    for bases in ("ACGT", "ACGTT"):
        path.write_bytes(gzip.compress(f">a\n{bases}\n".encode()))
        assert everything(Genome.open(path)) == {"a": bases}
    assert len(list(cache.glob("grows.fa.gz-*/bases-*"))) == 1


@pytest.mark.parametrize("change", ["append", "shift", "cut", "newline_for_base"])
def test_change_under_an_open_genome_is_noticed(change: str, tmp_path: Path) -> None:
    path = written(tmp_path / "a.fa", {"a": "ACGTACGTACGTACGTACGT"})
    settle(path)
    genome = Genome.open(path)
    text = path.read_bytes()
    changed = {
        "append": text + b"A\n",
        "shift": b">long\n" + text[3:],
        "cut": text[:10],
        "newline_for_base": text[:6] + b"\n" + text[7:],
    }[change]
    path.write_bytes(changed)
    for _ in range(2):
        with pytest.raises(UserError, match="changed after it was opened"):
            genome.fetch("a", 2, 20)


def test_pickled_genome_reads_the_same(tiny_genome: Path) -> None:
    genome = Genome.open(tiny_genome)
    data = pickle.dumps(genome)
    assert len(data) < 1000
    assert everything(pickle.loads(data)) == everything(genome)  # noqa: S301
    written(tiny_genome, {"other": "ACGT"})
    with pytest.raises(UserError, match="changed"):
        pickle.loads(data)  # noqa: S301


def _open_and_sum(path: str, cache: str, out: multiprocessing.SimpleQueue) -> None:
    genome = Genome.open(path, cache)
    out.put(sum(int(genome.fetch(r.name, 0, r.length).sum()) for r in genome.records))


def test_several_processes_index_at_once(make_bases, tmp_path: Path) -> None:
    path = tmp_path / "a.fa.gz"
    bases = make_bases(200_000, 1)
    path.write_bytes(gzip.compress(f">a\n{bases}\n".encode()))
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    workers = [context.Process(target=_open_and_sum, args=(str(path), str(tmp_path / "c"), queue)) for _ in range(4)]
    for worker in workers:
        worker.start()
    sums = [queue.get() for _ in workers]
    for worker in workers:
        worker.join()
    assert sums == [sum(bases.encode())] * 4
    assert len(list((tmp_path / "c").glob("a.fa.gz-*/bases-*"))) == 1


def test_cache_that_cannot_be_written_is_replaced_by_a_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_genome: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    from mamba_data_prep.genomes.cache import temporary_root

    temporary_root.cache_clear()
    try:
        genome = Genome.open(tiny_genome, blocked / "cache")
        assert len(everything(genome)) == 3
        assert list(tmp_path.glob("seqmamba-*/genome.fa-*/index.npz"))
    finally:
        temporary_root.cache_clear()


def test_temporary_cache_of_someone_else_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mamba_data_prep.genomes.cache import temporary_root

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    trap = tmp_path / f"seqmamba-{os.getuid()}"
    trap.mkdir()
    trap.chmod(0o777)
    temporary_root.cache_clear()
    try:
        assert temporary_root() != trap
        assert temporary_root().stat().st_mode & 0o077 == 0
    finally:
        temporary_root.cache_clear()


def test_full_disk_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.fa.gz"
    path.write_bytes(gzip.compress(b">a\n" + b"ACGT" * 100_000 + b"\n"))
    script = (
        "import resource, signal, sys\n"
        "from mamba_data_prep.genomes.genome import Genome\n"
        "from mamba_data_prep.errors import UserError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: Genome.open(sys.argv[1], sys.argv[2])\n"
        "except UserError as error: print(error)\n"
    )
    import subprocess
    import sys

    run = subprocess.run(
        [sys.executable, "-c", script, path, tmp_path / "c"], capture_output=True, text=True, check=True
    )
    assert "cannot be written" in run.stdout
    assert run.stdout.count("\n") == 1
    assert not list((tmp_path / "c").glob("*/*bases*"))


@pytest.mark.parametrize(("start", "end"), [(-1, 3), (0, 7), (5, 4), (7, 7)])
def test_bases_that_do_not_exist(start: int, end: int, tmp_path: Path) -> None:
    genome = Genome.open(written(tmp_path / "a.fa", {"a": "ACGTAC"}))
    with pytest.raises(UserError, match=r"record 'a': there are no such bases[\s\S]*accepted: 0-6"):
        genome.fetch("a", start, end)


@pytest.mark.parametrize("record", ["b", 1, -1])
def test_record_that_does_not_exist(record: str | int, tmp_path: Path) -> None:
    genome = Genome.open(written(tmp_path / "a.fa", {"a": "ACGTAC"}))
    with pytest.raises(UserError, match=r"no such record[\s\S]*accepted: a"):
        genome.fetch(record, 0, 1)


def test_unknown_bases_are_counted(tmp_path: Path) -> None:
    records = {"a": "NNACGTRN", "b": "ACGT", "c": "NNNN", "d": "ANNA", "e": "Nn"}
    genome = Genome.open(written(tmp_path / "a.fa", records, 3))
    rows = [(i, s, e) for i, r in enumerate(genome.records) for s in range(r.length) for e in range(s, r.length + 1)]
    record, start, end = np.array(rows).T
    counts = [sum(base not in "ACGT" for base in list(records.values())[r].upper()[s:e]) for r, s, e in rows]
    assert genome.unknown_counts(record, start, end).tolist() == counts


def test_runs_cut_by_blocks_are_joined() -> None:
    finder = UnknownFinder()
    for block in (b"ANN", b"NNN", b"NA", b"AN"):
        finder.feed(block)
    assert finder.runs().tolist() == [[1, 9], [7, 10]]


def test_description(tiny_genome: Path) -> None:
    genome = Genome.open(tiny_genome)
    assert len(genome) == 3
    assert repr(genome).endswith("3 records, 12,000 bases)")
    genome.close()
