"""The shipped genome is what its README says: real DNA, long enough, and fragments that no training saw."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

DATA = Path(__file__).resolve().parents[2] / "genomamba/demo/data"
SPECIES = ["human", "ecoli", "vcholerae", "saureus", "hpylori"]
PLACE = re.compile(r"(?P<source>[\w.]+):(?P<start>\d+)-(?P<end>\d+)")


def records(name: str) -> dict[str, str]:
    """Record id -> bases, read without the project's own reader."""
    parts = gzip.decompress((DATA / f"{name}.fa.gz").read_bytes()).decode().split(">")[1:]
    return {part.split(maxsplit=1)[0]: "".join(part.split("\n")[1:]) for part in parts}


def test_every_record_has_the_length_its_name_says() -> None:
    for name in [*SPECIES, "mixture"]:
        for record, bases in records(name).items():
            place = PLACE.fullmatch(record)
            assert place, record
            assert len(bases) == int(place["end"]) - int(place["start"]) + 1
            assert set(bases) == set("ACGT")


def test_there_is_enough_human_sequence_and_it_is_small_on_disk() -> None:
    assert sum(map(len, records("human").values())) == 1_200_000
    assert all(sum(map(len, records(name).values())) == 250_000 for name in SPECIES[1:])
    assert sum(path.stat().st_size for path in DATA.iterdir()) < 1_000_000


def test_no_fragment_to_classify_comes_from_a_training_region() -> None:
    trained = {name: [PLACE.fullmatch(record) for record in records(name)] for name in SPECIES}
    fragments = [PLACE.fullmatch(record) for record in records("mixture")]
    assert len(fragments) == 80
    for fragment in fragments:
        assert fragment
        for region in trained[fragment["source"]]:
            assert region
            assert int(fragment["start"]) > int(region["end"]) + 99_000 or int(fragment["end"]) < int(region["start"])


def test_every_file_is_described() -> None:
    readme = (DATA / "README.md").read_text()
    assert all(f"`{path.name}`" in readme for path in DATA.glob("*.fa.gz"))
