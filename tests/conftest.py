"""What every test shares: one torch thread, an own cache folder, and small genomes made on the spot."""

from __future__ import annotations

import importlib
import importlib.util
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import first_calls
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

# A busy machine may take its time: only pytest's own limit ends a test.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

if not torch.cuda.is_available() and importlib.util.find_spec("triton"):
    # Triton reads this when it is first imported, as Lightning does; the kernels' tests need its interpreter.
    os.environ["TRITON_INTERPRET"] = "1"
    importlib.import_module("triton.runtime.interpreter")
    del os.environ["TRITON_INTERPRET"]

_NOBODY = 65534
"""A user without any rights of its own."""

BASES = np.frombuffer(b"ACGT", dtype=np.uint8)


def pytest_runtest_setup() -> None:
    """Types are checked at the first calls of each test."""
    first_calls.begin_anew()


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tests run beside each other in worker processes, so each keeps to one core; commands started by a test too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Indexes of FASTA files are written to a folder of this session, never to the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("SEQMAMBA_CACHE")
    os.environ["SEQMAMBA_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["SEQMAMBA_CACHE"]
    else:
        os.environ["SEQMAMBA_CACHE"] = before


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder with a subfolder that may be written to and one that may not, `open` and `closed`.

    The superuser, as which tests often run, may write anywhere: for the time of the test this process acts as another.
    """
    folder = Path(tempfile.mkdtemp(prefix="unprivileged-"))
    folder.chmod(0o755)
    for name, mode in (("open", 0o777), ("closed", 0o555)):
        (folder / name).mkdir()
        (folder / name).chmod(mode)
    as_root = os.geteuid() == 0
    if as_root:
        os.seteuid(_NOBODY)
    try:
        yield folder
    finally:
        if as_root:
            os.seteuid(0)
        (folder / "closed").chmod(0o700)
        shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same random numbers in every run, whatever the order of the tests."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  (libraries below still draw from the global generator)
    torch.manual_seed(0)


@pytest.fixture
def make_bases() -> Callable[[int, int], str]:
    """A function (length, seed) -> random DNA as upper-case text."""

    def bases(length: int, seed: int = 0) -> str:
        return BASES[np.random.default_rng(seed).integers(0, 4, length)].tobytes().decode()

    return bases


@pytest.fixture
def write_fasta(tmp_path: Path) -> Callable[..., Path]:
    """A function (records, name="genome.fa", width=60) -> path, where records maps an id to its bases."""

    def write(records: dict[str, str], name: str = "genome.fa", width: int = 60) -> Path:
        path = tmp_path / name
        with path.open("w") as file:
            for record, sequence in records.items():
                file.write(f">{record}\n")
                file.writelines(sequence[i : i + width] + "\n" for i in range(0, len(sequence), width))
        return path

    return write


@pytest.fixture
def tiny_genome(write_fasta: Callable[..., Path], make_bases: Callable[[int, int], str]) -> Path:
    """Three records of 6,000, 4,000 and 2,000 random bases, with a run of N and some lower case in the first."""
    first = make_bases(6000, 1)
    first = first[:1000] + "N" * 200 + first[1200:2000].lower() + first[2000:]
    return write_fasta({"chr1": first, "chr2": make_bases(4000, 2), "chr3": make_bases(2000, 3)})
