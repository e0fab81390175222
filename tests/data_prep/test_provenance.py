"""Fingerprints follow the content; sidecars say what made a file, from what."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import xxhash

from mamba_data_prep.errors import UserError
from mamba_data_prep.provenance import Fingerprint, fingerprint, versions, write_sidecar


def test_fingerprint_is_the_content(tmp_path: Path) -> None:
    data = bytes(range(256)) * 10_000
    (tmp_path / "a").write_bytes(data)
    (tmp_path / "b").write_bytes(data)
    (tmp_path / "c").write_bytes(data[:-1] + b"x")
    assert fingerprint(tmp_path / "a") == Fingerprint(len(data), xxhash.xxh3_128_hexdigest(data))
    assert fingerprint(tmp_path / "a") == fingerprint(str(tmp_path / "b")) != fingerprint(tmp_path / "c")


def test_fingerprint_of_a_folder_knows_names(tmp_path: Path) -> None:
    for folder, name in (("a", "x"), ("b", "x"), ("c", "y")):
        (tmp_path / folder / "deep").mkdir(parents=True)
        (tmp_path / folder / "deep" / name).write_text("same")
    one, two, other = (fingerprint(tmp_path / name) for name in "abc")
    assert one == two != other
    assert one.size == 4


def test_sidecar(tmp_path: Path) -> None:
    out, source, model = tmp_path / "out.tsv", tmp_path / "in.fa", tmp_path / "model"
    out.write_text("result")
    source.write_text(">a\nAC\n")
    model.mkdir()
    (model / "weights").write_bytes(b"\0")
    known = Fingerprint(5, "0" * 32)
    path = write_sidecar(
        out,
        command=["genomamba", "classify"],
        inputs={str(source): source, "elsewhere": known, "-": "-"},
        model=model,
        seed=3,
        extra={"threshold": 0.5},
    )
    assert path == tmp_path / "out.tsv.json"
    record = json.loads(path.read_text())
    assert record["command"] == "genomamba classify"
    assert record["output"] == {"path": str(out), **fingerprint(out).to_dict()}
    assert record["inputs"] == [
        {"path": str(source), **fingerprint(source).to_dict()},
        {"path": "elsewhere", "size": 5, "xxh3_128": "0" * 32},
        {"path": "-"},
    ]
    assert record["model"]["xxh3_128"] == fingerprint(model).xxh3_128
    assert (record["seed"], record["threshold"]) == (3, 0.5)
    assert record["versions"].keys() >= {"python", "seqmamba", "numpy", "torch"}
    assert record["created"].endswith("+00:00")


def test_missing_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"in\.fa: there is no such file"):
        write_sidecar(tmp_path / "out", command="x", inputs=[tmp_path / "in.fa"])
    assert not (tmp_path / "out.json").exists()


def test_what_json_cannot_hold_is_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="`extra` holds something"):
        write_sidecar(tmp_path / "out", command="x", extra={"a": {1, 2}})
    assert not list(tmp_path.iterdir())


def test_versions_are_those_installed() -> None:
    import numpy

    assert versions()["numpy"] == numpy.__version__
