"""Damaged files are noticed, whatever is damaged: nothing is loaded silently, and the run goes on from one before."""

from __future__ import annotations

import io
import json
import random
import shutil
from pathlib import Path

import pytest
import torch

from mamba_data_prep.errors import UserError
from mamba_training.bundle import load_bundle, save_bundle
from mamba_training.checkpoint import DamagedCheckpoint, read_checkpoint, write_checkpoint

FEW_OR_MANY = [60, pytest.param(500, marks=pytest.mark.slow)]


def mutated(data: bytes, draw: random.Random) -> bytes:
    """One random accident: a cut, flipped bits, a lost or doubled or zeroed block, bytes added at the end."""
    kind = draw.choice(["cut", "flip", "flips", "lost", "doubled", "zeroed", "added", "swapped"])
    at = draw.randrange(len(data))
    size = draw.randint(1, 64)
    if kind == "cut":
        return data[:at]
    if kind in ("flip", "flips"):
        out = bytearray(data)
        for _ in range(1 if kind == "flip" else 8):
            out[draw.randrange(len(out))] ^= 1 << draw.randrange(8)
        return bytes(out)
    if kind == "lost":
        return data[:at] + data[at + size :]
    if kind == "doubled":
        return data[: at + size] + data[at:]
    if kind == "zeroed":
        return data[:at] + bytes(min(size, len(data) - at)) + data[at + size :]
    if kind == "added":
        return data + draw.randbytes(size)
    middle = len(data) // 2
    return data[middle:] + data[:middle]


@pytest.mark.parametrize("tries", FEW_OR_MANY)
def test_no_accident_to_a_checkpoint_goes_unnoticed(tmp_path: Path, tries: int) -> None:
    path, draw = tmp_path / "last.ckpt", random.Random(1)
    write_checkpoint(path, {"step": 7, "weight": torch.randn(500)})
    whole = path.read_bytes()
    for number in range(tries):
        data = mutated(whole, draw)
        path.write_bytes(data)
        if data == whole:
            continue
        try:
            read_checkpoint(path)
        except DamagedCheckpoint:
            continue
        pytest.fail(f"accident {number} was loaded")


@pytest.mark.parametrize("tries", FEW_OR_MANY)
def test_no_accident_to_a_bundle_goes_unnoticed(tmp_path: Path, tries: int) -> None:
    folder, draw = tmp_path / "model", random.Random(2)
    save_bundle(folder, {"weight": torch.randn(40, 5)}, {"kind": "toy", "model": {"d": 4, "name": "a"}}, "# Toy")
    for number in range(tries):
        path = folder / ("model.safetensors", "config.json")[number % 2]
        whole = path.read_bytes()
        data = mutated(whole, draw)
        path.write_bytes(data)
        try:
            found = load_bundle(folder)
        except UserError:
            pass
        else:  # white space in the JSON may change: what it says may not
            assert path.name == "config.json"
            assert json.loads(data) == json.loads(whole)
            assert found.config == {"kind": "toy", "model": {"d": 4, "name": "a"}}
        path.write_bytes(whole)


def rewritten(path: Path, change) -> None:
    payload = read_checkpoint(path)
    change(payload)
    write_checkpoint(path, payload)


CHANGES = {
    "a weight of another shape": lambda p: p["model"].update({"mixer.weight": torch.zeros(3, 3)}),
    "a weight of another type": lambda p: p["model"].update({"mixer.weight": torch.zeros(8, 8).double()}),
    "a missing weight": lambda p: p["model"].pop("mixer.weight"),
    "a weight too many": lambda p: p["model"].update(extra=torch.zeros(1)),
    "a weight that is a number": lambda p: p["model"].update({"mixer.weight": 3.0}),
    "an optimizer of another shape": lambda p: p["optimizers"][0]["state"][0].update(exp_avg=torch.zeros(2)),
    "an optimizer without groups": lambda p: p["optimizers"][0].pop("param_groups"),
    "two optimizers": lambda p: p["optimizers"].append(p["optimizers"][0]),
    "no progress": lambda p: p.pop("progress"),
    "a strange progress": lambda p: p["progress"].update(strange=1),
    "a strange schedule": lambda p: p["schedule"].pop("bends"),
    "no random state": lambda p: p.pop("randomness"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_checkpoint_that_does_not_fit_is_passed_over(toy_run, tmp_path, capsys, change) -> None:
    toy_run(max_steps=6, checkpoint_every=4)
    last = tmp_path / "run/checkpoints/last.ckpt"
    assert read_checkpoint(last.with_name("previous.ckpt"))["step"] == 4
    rewritten(last, change)
    model, result = toy_run(max_steps=8, resume=True)
    assert model.seen[0][0] == 4
    assert result.step == 8
    assert "last.ckpt is not used" in capsys.readouterr().err


def test_another_version_and_a_truncated_file_are_passed_over_in_one_line(toy_run, tmp_path, capsys) -> None:
    toy_run(max_steps=6, checkpoint_every=4)
    folder = tmp_path / "run/checkpoints"
    data = bytearray((folder / "last.ckpt").read_bytes())
    data[-36] = 9
    (folder / "last.ckpt").write_bytes(data)
    toy_run(max_steps=8, resume=True)
    assert "its format is version 9, and this program reads version 1" in capsys.readouterr().err
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"no checkpoint of this run can be used: last\.ckpt: it is cut"):
        toy_run(max_steps=8, resume=True)


def test_torch_reads_a_checkpoint_as_it_is(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "a.ckpt", {"weight": torch.arange(3)})
    assert torch.load(tmp_path / "a.ckpt", weights_only=True)["weight"].tolist() == [0, 1, 2]


def test_a_bundle_comes_back_as_it_was(tmp_path: Path) -> None:
    tied = torch.randn(4, 3)
    state = {"a": tied, "b": tied, "half": torch.ones(2, dtype=torch.bfloat16), "n": torch.tensor(3)}
    save_bundle(tmp_path / "run/model", state, {"kind": "toy", "classes": ["x", "ä"]}, "# Card\n")
    for path in (tmp_path / "run", tmp_path / "run/model", str(tmp_path / "run")):
        found = load_bundle(path)
        assert found.state.keys() == state.keys()
        assert all(torch.equal(found.state[name], state[name]) for name in state)
        assert (found.config, found.card) == ({"kind": "toy", "classes": ["x", "ä"]}, "# Card\n")
    found.check(state)
    with pytest.raises(UserError, match=r"weight a is \(4, 3\)(?s:.*)model's is \(4, 4\)"):
        found.check({**state, "a": torch.zeros(4, 4)})
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["model"]


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the weight w holds values that are not finite"):
        save_bundle(tmp_path / "model", {"w": torch.tensor([1.0, float("nan")])}, {}, "")
    assert not (tmp_path / "model").exists()
    save_bundle(tmp_path / "model", {"w": torch.full((9,), 3e38)}, {}, "")


def test_a_bundle_replaces_an_older_one(tmp_path: Path) -> None:
    for number in (1, 2):
        save_bundle(tmp_path / "model", {"w": torch.tensor([number])}, {"number": number}, "")
    assert load_bundle(tmp_path / "model").config == {"number": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_weights_of_another_bundle_are_noticed(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_bundle(tmp_path / name, {"w": torch.randn(3)}, {}, "")
    shutil.copy(tmp_path / "one/model.safetensors", tmp_path / "two/model.safetensors")
    with pytest.raises(UserError, match=r"is damaged(?s:.*)again"):
        load_bundle(tmp_path / "two")


def test_a_stream_that_only_looks_like_a_checkpoint_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"step": 1}, buffer)
    (tmp_path / "plain.ckpt").write_bytes(buffer.getvalue())
    with pytest.raises(DamagedCheckpoint, match="no checkpoint of this program"):
        read_checkpoint(tmp_path / "plain.ckpt")
