"""Models and checkpoints made to run code, to fill the memory, or to read other files: refused, and nothing happens."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save as safetensors_bytes

from mamba_data_prep.errors import UserError
from mamba_training.bundle import CONFIG, WEIGHTS, load_bundle, save_bundle
from mamba_training.checkpoint import _TAG, DamagedCheckpoint, read_checkpoint
from mamba_training.run import best_weights

MARK = "executed"


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (os.system, (f"touch {self.mark}",))


def seal(data: bytes) -> bytes:
    """The trailer of a checkpoint, with the right sum: what a forger can do too."""
    return data + _TAG + (1).to_bytes(4, "little") + hashlib.sha256(data).digest()


def saved(payload: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(payload, buffer)
    return buffer.getvalue()


def zip_bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", saved({})[:10])
        archive.writestr("archive/data/0", bytes(200 << 20))
    return buffer.getvalue()


def lying_zip() -> bytes:
    """A stored member whose directory entry claims two gigabytes."""
    data = bytearray(saved({"w": torch.zeros(10)}))
    at = data.rfind(b"PK\x01\x02")
    data[at + 24 : at + 28] = (2**31).to_bytes(4, "little")
    return bytes(data)


def huge_view() -> bytes:
    return saved({"model": {"w": torch.zeros(1).expand(2**40)}})


CHECKPOINTS: dict[str, Callable[[Path], bytes]] = {
    "pickle": lambda mark: seal(pickle.dumps(Bomb(mark))),
    "pickle in a zip": lambda mark: seal(saved({"step": Bomb(mark)})),
    "pickle of the old format": lambda mark: seal(old_format(Bomb(mark))),
    "zip bomb": lambda mark: seal(zip_bomb()),
    "lying directory": lambda mark: seal(lying_zip()),
    "a list": lambda mark: seal(saved([1, 2])),
    "unsealed": lambda mark: saved({"step": Bomb(mark)}),
}


def old_format(payload: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(payload, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


@pytest.mark.parametrize("make", CHECKPOINTS.values(), ids=CHECKPOINTS)
def test_a_malicious_checkpoint_does_nothing(tmp_path: Path, make: Callable[[Path], bytes]) -> None:
    mark = tmp_path / MARK
    folder = tmp_path / "run/checkpoints"
    folder.mkdir(parents=True)
    (folder / "last.ckpt").write_bytes(make(mark))
    with pytest.raises(DamagedCheckpoint):
        read_checkpoint(folder / "last.ckpt")
    with pytest.raises(UserError, match="no usable checkpoint"):
        best_weights(tmp_path / "run")
    assert not mark.exists()


READING = """
import sys
from pathlib import Path
from mamba_training.checkpoint import DamagedCheckpoint, read_checkpoint

def resident(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) >> 10

for path in sys.argv[1:]:
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here on
    before = resident("VmRSS")
    try:
        read_checkpoint(Path(path))
        end = "read"
    except DamagedCheckpoint:
        end = "refused"
    print(end, resident("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from /proc")
def test_a_malicious_checkpoint_takes_no_memory(tmp_path: Path) -> None:
    """In a process of its own, whose peak nothing else has raised; a whole checkpoint shows that it is measured."""
    whole = {"w": torch.zeros(50 << 18)}
    makes = {**CHECKPOINTS, "whole": lambda mark: seal(saved(whole))}
    paths = []
    for number, make in enumerate(makes.values()):
        paths.append(tmp_path / f"{number}.ckpt")
        paths[-1].write_bytes(make(tmp_path / MARK))
    done = subprocess.run([sys.executable, "-c", READING, *paths], capture_output=True, text=True, check=True)
    found = [line.split() for line in done.stdout.splitlines()]
    assert [end for end, _ in found] == ["refused"] * len(CHECKPOINTS) + ["read"]
    *malicious, honest = [int(mebibytes) for _, mebibytes in found]
    assert max(malicious) < 20
    assert honest >= 50
    assert not (tmp_path / MARK).exists()


def test_a_tensor_that_claims_to_be_huge_takes_no_memory_and_does_not_fit(tmp_path: Path) -> None:
    from mamba_training.checkpoint import check_weights

    path = tmp_path / "last.ckpt"
    path.write_bytes(seal(huge_view()))
    with pytest.raises(DamagedCheckpoint, match="its weight w is"):
        check_weights(read_checkpoint(path)["model"], {"w": torch.zeros(3)})


def forge(folder: Path, weights: bytes | None = None, config: dict | None = None) -> None:
    """Put other weights or settings into a bundle, with the right sums."""
    plain = {"kind": "toy"} if config is None else config
    data = (folder / WEIGHTS).read_bytes() if weights is None else weights
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    sums = {WEIGHTS: hashlib.sha256(data).hexdigest(), CONFIG: hashlib.sha256(text.encode()).hexdigest()}
    (folder / WEIGHTS).write_bytes(data)
    (folder / CONFIG).write_text(json.dumps({**plain, "checksums": sums}))


def header(text: bytes, length: int | None = None) -> bytes:
    return (len(text) if length is None else length).to_bytes(8, "little") + text


def entry(dtype: str = "F32", shape: object = (2,), offsets: object = (0, 8), name: str = "w") -> bytes:
    return json.dumps({name: {"dtype": dtype, "shape": shape, "data_offsets": offsets}}).encode()


WEIGHT_FILES: dict[str, Callable[[Path], bytes]] = {
    "pickle": lambda mark: pickle.dumps(Bomb(mark)),
    "a torch file": lambda mark: saved(Bomb(mark)),
    "header bomb": lambda mark: header(b"{}", 2**62),
    "header of 4 GB": lambda mark: header(b"{}", 2**32 - 1),
    "empty": lambda mark: b"",
    "deep header": lambda mark: header(b"[" * 100_000),
    "offsets beyond the file": lambda mark: header(entry(offsets=(0, 2**40), shape=(2**38,))) + bytes(8),
    "overlapping offsets": lambda mark: header(entry(offsets=(-8, 8))) + bytes(8),
    "shape against offsets": lambda mark: header(entry(shape=(2**33,))) + bytes(8),
    "shape that overflows": lambda mark: header(entry(shape=(2**32, 2**32))) + bytes(8),
    "unknown type": lambda mark: header(entry(dtype="OBJ")) + bytes(8),
    "not finite": lambda mark: safetensors_bytes({"w": torch.tensor([float("inf")])}),
}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return save_bundle(tmp_path / "model", {"w": torch.ones(2)}, {"kind": "toy"}, "# Toy")


@pytest.mark.parametrize("make", WEIGHT_FILES.values(), ids=WEIGHT_FILES)
def test_malicious_weights_are_refused(bundle: Path, make: Callable[[Path], bytes]) -> None:
    mark = bundle.parent / MARK
    forge(bundle, make(mark))
    with pytest.raises(UserError):
        load_bundle(bundle)
    assert not mark.exists()


def test_a_forged_bundle_of_plain_weights_is_readable(bundle: Path) -> None:
    """The forgeries above are refused for what they are, not because `forge` makes mistakes."""
    forge(bundle, safetensors_bytes({"w": torch.zeros(2)}))
    assert load_bundle(bundle).state["w"].tolist() == [0, 0]


CONFIGS = {
    "NaN": '{"a": NaN}',
    "deep": "[" * 200_000,
    "a key twice": '{"a": 1, "a": 2}',
    "a list": "[1]",
    "no sums": '{"a": 1}',
    "sums of another kind": '{"checksums": [1]}',
    "not text": b"\xff\xfe{}",
    "a number of a million digits": '{"a": ' + "9" * 1_000_000 + "}",
}


@pytest.mark.parametrize("text", CONFIGS.values(), ids=CONFIGS)
def test_malicious_settings_are_refused(bundle: Path, text: str | bytes) -> None:
    (bundle / CONFIG).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match="config"):
        load_bundle(bundle)


@pytest.mark.parametrize("key", ["_target_", "_instantiator", "_class_path", "class_path", "__reduce__"])
def test_settings_that_name_code_are_only_text(bundle: Path, key: str) -> None:
    mark = bundle.parent / MARK
    config = {"kind": "toy", key: "os.system", "init_args": {"command": f"touch {mark}"}}
    forge(bundle, config=config)
    assert load_bundle(bundle).config == config
    assert not mark.exists()


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG, "README.md"])
def test_a_link_out_of_the_bundle_is_not_followed(bundle: Path, tmp_path: Path, name: str) -> None:
    outside = tmp_path / f"secret-{name}"
    (bundle / name).rename(outside)
    (bundle / name).symlink_to(outside)
    with pytest.raises(UserError, match="leads out"):
        load_bundle(bundle)


def test_a_model_folder_that_is_a_link_out_of_its_run_is_not_followed(bundle: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "model").symlink_to(bundle)
    with pytest.raises(UserError, match="leads out"):
        load_bundle(run)


def test_a_pipe_in_place_of_the_weights_does_not_hang(bundle: Path) -> None:
    (bundle / WEIGHTS).unlink()
    os.mkfifo(bundle / WEIGHTS)
    with pytest.raises(UserError, match="not a plain file"):
        load_bundle(bundle)


@pytest.mark.parametrize(
    "address", ["https://example.org/model", "hf://a/b", "s3://bucket/model", "file:///etc", "http:/example.org/x"]
)
def test_addresses_are_refused(address: str) -> None:
    with pytest.raises(UserError, match="not read from addresses"):
        load_bundle(address)


@pytest.mark.parametrize("name", ["model.pt", "model.ckpt", "model.pkl", "model.bin"])
def test_pickles_are_refused_unread(tmp_path: Path, name: str) -> None:
    mark = tmp_path / MARK
    (tmp_path / name).write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(UserError, match="a pickle can run code"):
        load_bundle(tmp_path / name)
    assert not mark.exists()


def test_what_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such model"):
        load_bundle(tmp_path / "nothing")
    with pytest.raises(UserError, match="neither a model nor a run folder"):
        load_bundle(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match=r"has written no model yet(?s:.*)--resume"):
        load_bundle(tmp_path)
