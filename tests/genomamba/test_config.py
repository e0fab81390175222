"""Settings are laid over each other in the promised order, and wrong ones are refused with the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from genomamba import config
from genomamba.config import PretrainConfig, load_config
from mamba_data_prep.errors import UserError


def test_order_is_preset_then_set_then_flags() -> None:
    assert load_config("genomamba-tiny").data.window == 1024
    assert load_config("genomamba-tiny", ["data.window=2048"]).data.window == 2048
    flags = {"data.window": 512, "train.max_steps": None}
    assert load_config("genomamba-tiny", ["data.window=2048", "train.max_steps=7"], flags=flags) == load_config(
        "genomamba-tiny", ["data.window=512", "train.max_steps=7"]
    )


@pytest.mark.parametrize(
    ("text", "section", "key", "value"),
    [
        ("data.window=4096", "data", "window", 4096),
        ("data.window=2^12", "data", "window", 4096),
        ("data.window=2**12", "data", "window", 4096),
        ("data.window=4_096", "data", "window", 4096),
        ("optim.lr=8e-3", "optim", "lr", 0.008),
        ("optim.lr=0.001", "optim", "lr", 0.001),
        ("train.tokens_per_step=1e6", "train", "tokens_per_step", 1_000_000),
        ("train.tokens_per_step=auto", "train", "tokens_per_step", "auto"),
        ("train.max_time=20m", "train", "max_time", "20m"),
        ("train.max_time=90", "train", "max_time", 90),
        ("train.max_time=null", "train", "max_time", None),
        ("train.devices=2", "train", "devices", 2),
        ("model.pattern=[mamba, attention]", "model", "pattern", ("mamba", "attention")),
        ("model.chunk_size=null", "model", "chunk_size", None),
        ("data.reverse_complement=false", "data", "reverse_complement", False),
    ],
)
def test_values_are_read_as_people_write_them(text: str, section: str, key: str, value: object) -> None:
    found = getattr(getattr(load_config(None, [text]), section), key)
    assert found == value
    assert type(found) is type(value) or isinstance(found, float)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data.windw=4096", ["data.windw", "did you mean data.window?"]),
        ("window=4096", ["no setting window", "did you mean data.window?"]),
        ("lr=1", ["did you mean optim.lr?"]),
        ("a.b.c=1", ["no setting a", "model, objective, counts, data, optim, train"]),
        ("data.window=15", ["data.window", "15", "from 16"]),
        ("data.window=true", ["data.window", "not numbers"]),
        ("data.window=wide", ["data.window", "wide"]),
        ("data.window=4096.5", ["data.window", "4096.5"]),
        ("data.window=2^99", ["data.window", "2^99"]),
        ("data.window.x=1", ["window is a value, not a section"]),
        ("data=3", ["data cannot be this", "window"]),
        ("optim.lr=-1", ["optim.lr", "-1"]),
        ("optim.lr=.nan", ["optim.lr", "nan"]),
        ("optim.lr=.inf", ["optim.lr", "inf"]),
        ("model.pattern=[mmba]", ["model.pattern", "mmba", "mamba, mamba2, s4d, hyena and attention"]),
        ("model.pattern=[]", ["model.pattern"]),
        ("model.bidirectional=add", ["must be none"]),
        ("model.n_heads=3", ["n_heads=3", "d_model=128"]),
        ("train.precision=fp8", ["train.precision", "fp8", "bf16-mixed"]),
        ("train.devices=0", ["devices=0"]),
        ("counts.ordr=3", ["counts.ordr", "order"]),
        ("counts.order=12", ["counts", "12", "11"]),
        ("train.max_time=soon", ["max_time", "soon", "20m"]),
        ("data.window", ["KEY=VALUE"]),
        ("=3", ["KEY=VALUE"]),
        ("data.window=[1", ["cannot be read"]),
    ],
)
def test_wrong_settings_are_refused_with_key_value_and_remedy(text: str, words: list[str]) -> None:
    with pytest.raises(UserError) as refused:
        load_config(None, [text])
    assert [word for word in words if word not in str(refused.value)] == []


def test_all_wrong_settings_are_named_at_once() -> None:
    with pytest.raises(UserError) as refused:
        load_config(None, ["data.window=1", "optim.lr=-1", "data.x=1"])
    assert all(key in str(refused.value) for key in ("data.window", "optim.lr", "data.x"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data:\n  window: 64\n  window: 128\n", ["line 3", "same key twice"]),
        ("data: {window: 64\n", ["not a YAML file"]),
        ("- 1\n- 2\n", ["mapping"]),
        ("just words\n", ["mapping"]),
        ("!!python/object/apply:os.getcwd []\n", ["not a YAML file"]),
        ("data:\n  windows: 64\n", ["data.windows", "did you mean data.window?"]),
        ("\ttab: 1\n", ["line 1"]),
    ],
)
def test_wrong_files_are_refused_by_name(tmp_path: Path, text: str, words: list[str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as refused:
        load_config(path)
    assert [word for word in [*words, "mine.yaml"] if word not in str(refused.value)] == []


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UserError, match=r"mine\.yaml"):
        load_config(path)


def test_an_empty_file_takes_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("# nothing\n")
    assert load_config(path) == PretrainConfig()


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"did you mean genomamba-1\.4m"):
        load_config("genomamba-1.4")
    with pytest.raises(UserError, match="a folder"):
        load_config(Path(__file__).parent)


def test_what_is_saved_reads_back(tmp_path: Path) -> None:
    made = load_config("genomamba-tiny", ["train.max_time=20m", "model.pattern=[mamba, attention]", "fasta=x.fa"])
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml(made))
    assert load_config(path) == made


def test_differences_name_dotted_keys() -> None:
    one, other = load_config(), load_config(None, ["data.window=64", "fasta=x.fa"])
    assert config.differences(one, other) == {"data.window": (4096, 64), "fasta": (None, "x.fa")}
    assert config.differences(one, one) == {}


def test_layers_repeat_the_pattern() -> None:
    model = load_config(None, ["model.pattern=[mamba, mamba, attention]", "model.n_layers=5"]).model
    assert model.layers == ["mamba", "mamba", "attention", "mamba", "mamba"]
