"""Pre-training from a FASTA file to a bundle, on a genome whose entropy is known, and what it does after a kill."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from genomamba.commands.pretrain import run_pretrain
from genomamba.config import DataConfig, ModelConfig, TrainConfig, load_config
from genomamba.language_model.batches import plan_batches
from genomamba.language_model.data import GenomeData, GenomeWindows, frozen, make_split
from genomamba.language_model.markov import MarkovCounts
from genomamba.language_model.markov_of_run import SeenMarkov
from genomamba.language_model.model import GenomeLM
from mamba_data_prep.errors import UserError
from mamba_data_prep.genomes.audit import audit
from mamba_data_prep.genomes.genome import Genome

SMALL = [
    "model.d_model=16",
    "model.n_layers=2",
    "model.d_state=4",
    "data.window=64",
    "data.valid_bases=2048",
    "data.final_bases=4096",
    "train.tokens_per_step=1024",
]
FAST = [*SMALL, "optim.lr=0.02", "optim.warmup_steps=5", "data.reverse_complement=false"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A genome drawn from a Markov source of order 3, and the source's bits per base."""
    rng = np.random.default_rng(7)
    following = 0.9 * rng.dirichlet([0.4] * 4, size=64) + 0.1 * 0.25  # no base is ever ruled out
    draws, contexts, context = rng.random(60_000), [], 0
    bases = np.empty(60_000, dtype=np.uint8)
    limits = following.cumsum(axis=1)
    for place, draw in enumerate(draws):
        base = min(3, int(np.searchsorted(limits[context], draw)))
        contexts.append(context)
        bases[place], context = base, (4 * context + base) % 64
    path = tmp_path_factory.mktemp("source") / "source.fa"
    path.write_bytes(b">chr1\n" + np.frombuffer(b"ACGT", dtype=np.uint8)[bases].tobytes() + b"\n")
    return path, float(-np.log2(following[contexts, bases]).mean())


def test_the_loss_approaches_the_entropy_of_the_source(source: tuple[Path, float], tmp_path: Path) -> None:
    path, entropy = source
    flags = {"fasta": str(path), "train.max_steps": 150}
    result = run_pretrain(out=tmp_path / "run", overrides=FAST, flags=flags)
    orders = [bits for _, _, bits in result["markov"]["by_order"]]
    assert orders[2] > entropy + 0.3
    assert result["test"]["bits"] < orders[2] - 0.2
    assert result["test"]["bits"] == pytest.approx(entropy, abs=0.06)
    assert result["markov"]["order"] == 3
    assert result["markov"]["test_bits"] == pytest.approx(entropy, abs=0.03)
    assert (result["status"], result["step"], result["tokens"]) == ("finished", 150, 150 * 1024)
    assert result["valid"]["perplexity"] == pytest.approx(2 ** result["valid"]["bits"])
    check_run_folder(tmp_path / "run", result)


def check_run_folder(run: Path, result: dict) -> None:
    rows = list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
    validations = [float(row["val_bits"]) for row in rows if row["val_bits"]]
    assert len(rows) == 150
    assert validations[-1] < validations[0]
    assert all(row["markov_bits"] for row in rows if row["val_bits"])
    assert (run / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    card = (run / "model" / "README.md").read_text()
    made = json.loads((run / "model" / "config.json").read_text())["training"]
    assert made["genome"]["xxh3_128"] in card
    assert f"{result['markov']['test_bits']:.4f}" in card
    assert load_config(run / "config.yaml").data.window == 64
    assert GenomeLM.from_bundle(run).n_parameters() == result["n_parameters"]
    assert "this model" in result["text"]
    assert "Markov, order" in result["text"]
    everything = result["markov_all"]
    assert everything["bases_seen"] > result["markov"]["bases_seen"]
    assert "all training bases, both strands" in card
    assert f"{everything['test_bits']:.4f}" in result["text"]
    saved = everything["test_bits"] - result["test"]["bits"]
    assert everything["saved_bits"] == pytest.approx(saved, abs=1e-6)
    assert 0 < everything["saved_bits_error"] < 0.1


def losses(run: Path) -> list[tuple[str, str, str]]:
    with (run / "metrics.csv").open() as file:
        return [(row["step"], row["loss"], row.get("val_bits", "")) for row in csv.DictReader(file)]


def command(path: Path, run: Path, *more: str, steps: int = 60) -> list[str]:
    settings = [text for pair in (("--set", text) for text in FAST) for text in pair]
    settings += ["--set", "train.validate_every=20", "--set", "train.checkpoint_seconds=0.2"]
    program = [sys.executable, "-m", "genomamba", "pretrain"]
    return [*program, "--fasta", str(path), "--out", str(run), "--max-steps", str(steps), *settings, *more]


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_nothing_had_happened(source: tuple[Path, float], tmp_path: Path) -> None:
    path, _ = source
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(path, whole), check=True, capture_output=True)
    process = subprocess.Popen(command(path, killed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: (killed / "checkpoints" / "last.ckpt").exists() and len(losses(killed)) >= 5, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    again = [sys.executable, "-m", "genomamba", "pretrain", "--out", str(killed), "--resume", "--json"]
    done = subprocess.run(again, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout)["step"] == 60
    assert losses(killed) == losses(whole)
    one, other = GenomeLM.from_bundle(whole).state_dict(), GenomeLM.from_bundle(killed).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def until(true: Callable[[], bool], process: subprocess.Popen[bytes], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < end
        time.sleep(0.02)


def test_an_interrupted_run_exits_3_and_says_how_to_go_on(source: tuple[Path, float], tmp_path: Path) -> None:
    run = tmp_path / "run"
    asked = command(source[0], run, steps=100_000)
    process = subprocess.Popen(asked, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    until(lambda: (run / "metrics.csv").exists() and len(losses(run)) >= 1, process)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate()
    assert process.returncode == 3
    assert b"--resume" in said
    assert b"Traceback" not in said


@pytest.mark.parametrize(
    ("text", "overrides", "words"),
    [
        (">a\n" + "ACGT" * 50, [], ["too few windows of 64", "shorter windows"]),
        (">a\n" + "N" * 5000, [], ["too few windows"]),
        (">a\nMKVLAAGIVGLLLAQWERTYIPASDFGHKLCVNM\n", [], ["genome.fa"]),
        ("no fasta\n", [], ["genome.fa", "line 1"]),
        ("", [], ["genome.fa"]),
    ],
)
def test_genomes_that_cannot_be_learnt_are_refused(
    tmp_path: Path, text: str, overrides: list[str], words: list[str]
) -> None:
    path = tmp_path / "genome.fa"
    path.write_text(text)
    with pytest.raises(UserError) as refused:
        run_pretrain(out=tmp_path / "run", overrides=[*SMALL, *overrides], flags={"fasta": str(path)})
    assert [word for word in words if word not in str(refused.value)] == []
    assert not (tmp_path / "run").exists()


def test_a_run_folder_in_use_or_of_other_settings_is_refused(source: tuple[Path, float], tmp_path: Path) -> None:
    run, flags = tmp_path / "run", {"fasta": str(source[0]), "train.max_steps": 2}
    run_pretrain(out=run, overrides=SMALL, flags=flags)
    with pytest.raises(UserError, match="--resume"):
        run_pretrain(out=run, overrides=SMALL, flags=flags)
    with pytest.raises(UserError, match=r"data\.window was 64 and is now 32"):
        run_pretrain(out=run, overrides=["data.window=32"], resume=True)
    changed = tmp_path / "other.fa"
    changed.write_bytes(source[0].read_bytes().replace(b"ACG", b"ACC", 1))
    with pytest.raises(UserError, match=r"content\.genome"):
        run_pretrain(out=run, flags={"fasta": str(changed)}, resume=True)
    moved = tmp_path / "moved.fa"
    moved.write_bytes(source[0].read_bytes())
    assert run_pretrain(out=run, flags={"fasta": str(moved), "train.max_steps": 4}, resume=True)["step"] == 4


def test_resume_without_anything_to_resume_needs_a_genome(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no genome is given"):
        run_pretrain(out=tmp_path / "run", resume=True)


def test_bed_regions_and_bed_splits(tiny_genome: Path, tmp_path: Path) -> None:
    genome, config = Genome.open(tiny_genome), DataConfig(window=32)
    bed = tmp_path / "regions.bed"
    bed.write_text("chr1\t2000\t6000\tgene1\nchr2\t0\t4000\tgene2\n")
    split = make_split(genome, config, bed)
    assert audit(genome, split).ok
    tables = split.tables().values()
    assert all(((table.record == 1) | ((table.record == 0) & (table.start >= 2000))).all() for table in tables)
    bed.write_text("chr1\t0\t6000\ttrain\nchr2\t0\t2000\tvalid\nchr3\t0\t2000\ttest\n")
    split = make_split(genome, config, bed)
    assert [set(table.record.tolist()) for table in split.tables().values()] == [{0}, {1}, {2}]


def test_frozen_windows_are_the_same_and_spread_out(tiny_genome: Path) -> None:
    split = make_split(Genome.open(tiny_genome), DataConfig(window=16))
    some = frozen(split.train, 320)
    assert len(some) == 20
    assert some.digest() == frozen(split.train, 320).digest()
    places = np.searchsorted(split.train.start + split.train.record * 10**6, some.start + some.record * 10**6)
    assert places[0] == 0
    assert places[-1] == len(split.train) - 1
    assert len(frozen(split.valid, 10**9)) == len(split.valid)


def test_the_baseline_counts_exactly_what_the_loader_gives(tiny_genome: Path) -> None:
    genome, config = Genome.open(tiny_genome), DataConfig(window=50)
    data = GenomeData(genome, make_split(genome, config), config, batch_size=3, seed=5)
    batches = iter(data.train_dataloader())
    n_batches = len(data.train) // 3
    ids = np.concatenate([next(batches).numpy() for _ in range(n_batches)])
    expected, follower = MarkovCounts(3), SeenMarkov(data.train, seed=5, max_order=3)
    expected.add(ids)
    for samples in (7, 8, 3 * n_batches):
        follower.follow(samples)
    found = follower._counts.tables()
    assert all(np.array_equal(one, other) for one, other in zip(found, expected.tables(), strict=True))


def test_a_window_seen_again_is_counted_once_a_strand(tiny_genome: Path) -> None:
    genome = Genome.open(tiny_genome)
    split = make_split(genome, DataConfig(window=50))
    for both, strands in ((False, 1), (True, 2)):
        windows = GenomeWindows(genome, split.train, reverse_complement=both, seed=1)
        follower = SeenMarkov(windows, seed=1, max_order=2)
        follower.follow(60 * len(windows))
        once = MarkovCounts(2)
        for ids in GenomeWindows(genome, split.train).blocks():
            once.add(ids)
        assert follower.result(windows).bases_seen == strands * once.n_bases


def test_resumed_batches_are_those_of_a_run_without_a_stop(tiny_genome: Path) -> None:
    genome, config = Genome.open(tiny_genome), DataConfig(window=50)
    split = make_split(genome, config)
    data = GenomeData(genome, split, config, batch_size=3, seed=5)
    batches = iter(data.train_dataloader())
    whole = [next(batches) for _ in range(200)]
    data.start_batch = 170
    batches = iter(data.train_dataloader())
    assert all(torch.equal(next(batches), batch) for batch in whole[170:])


@pytest.mark.parametrize("window", [16, 1000, 4096, 8192, 10_000, 2**20])
@pytest.mark.parametrize("tokens", ["auto", 1, 5000, 2**20])
def test_batches_add_up_to_the_tokens_of_a_step(window: int, tokens: int | str) -> None:
    train = TrainConfig.model_validate({"tokens_per_step": tokens, "accelerator": "cpu", "devices": 2})
    plan = plan_batches(train, ModelConfig(), window)
    wanted = 8192 if tokens == "auto" else int(tokens)
    assert plan.n_devices == 2
    assert plan.windows_per_step >= 2
    assert abs(plan.windows_per_step * window - wanted) <= 2 * window
    assert plan.batch_size == 1 or plan.batch_size * window <= 2**14


def test_records_without_bases_are_named(
    source: tuple[Path, float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fasta = tmp_path / "g.fa"
    fasta.write_text(source[0].read_text() + ">none\n>gap\nNNNN\n")
    run_pretrain(out=tmp_path / "run", overrides=FAST, flags={"fasta": str(fasta), "train.max_steps": 1})
    told = capsys.readouterr().err
    assert "note: in g.fa, 2 records have no known base, from which nothing is learnt: none, gap" in told


def test_counts_in_the_model_are_told_apart_from_the_network(source: tuple[Path, float], tmp_path: Path) -> None:
    path, _ = source
    small = ["counts.order=1", "counts.long_contexts=0"]  # too short for this source: the network has to find the rest
    flags = {"fasta": str(path), "train.max_steps": 60}
    result = run_pretrain(out=tmp_path / "run", overrides=[*FAST, *small], flags=flags)
    alone = result["counts_alone"]
    assert (alone["order"], alone["long_contexts"]) == (1, 0)
    assert alone["saved_bits"] == pytest.approx(alone["test_bits"] - result["test"]["bits"], abs=1e-6)
    assert alone["saved_bits"] > 0.1
    assert f"{alone['test_bits']:.4f}" in (tmp_path / "run" / "model" / "README.md").read_text()
    assert "counts in the model alone" in result["text"]
    assert GenomeLM.from_bundle(tmp_path / "run").table is not None
    without = run_pretrain(out=tmp_path / "without", overrides=[*FAST, "counts=null"], flags=flags)
    assert "counts_alone" not in without
    assert GenomeLM.from_bundle(tmp_path / "without").table is None


def test_a_run_goes_on_with_a_model(source: tuple[Path, float], tiny_genome: Path, tmp_path: Path) -> None:
    path, _ = source
    short = ["data.window=64", *FAST[4:], "train.max_steps=2"]
    plain = [*FAST, "counts=null", "train.max_steps=40"]
    first = run_pretrain(out=tmp_path / "first", overrides=plain, flags={"fasta": str(path)})
    flags = {"fasta": str(path), "from_model": first["model"]}
    second = run_pretrain(out=tmp_path / "second", overrides=[*short, "optim.lr=1e-6"], flags=flags)
    assert second["test"]["bits"] == pytest.approx(first["test"]["bits"], abs=1e-3)
    assert first["test"]["bits"] < 1.95
    made = json.loads((Path(second["model"]) / "config.json").read_text())["training"]
    assert made["from"]["tokens"] == first["tokens"]
    assert made["from"]["name"] == "first"
    assert len(made["read"]["genomes"]) == 1
    assert "went on from `first`" in (Path(second["model"]) / "README.md").read_text()
    flags = {"fasta": str(tiny_genome), "from_model": second["model"]}
    other = run_pretrain(out=tmp_path / "third", overrides=short, flags=flags)
    made = json.loads((Path(other["model"]) / "config.json").read_text())["training"]
    assert made["from"]["tokens"] == first["tokens"] + second["tokens"]
    assert len(made["from"]["commands"]) == 2
    assert [one["file"] for one in made["read"]["genomes"]] == [path.name, tiny_genome.name]
    with pytest.raises(UserError, match="content"):
        run_pretrain(out=tmp_path / "third", flags={"from_model": first["model"]}, resume=True)


def test_counts_are_those_of_the_genome_that_is_gone_on_with(
    source: tuple[Path, float], tiny_genome: Path, tmp_path: Path
) -> None:
    path, _ = source
    first = run_pretrain(out=tmp_path / "first", overrides=[*FAST, "train.max_steps=2"], flags={"fasta": str(path)})
    short = ["data.window=64", *FAST[4:], "train.max_steps=2"]
    flags = {"fasta": str(tiny_genome), "from_model": first["model"]}
    second = run_pretrain(out=tmp_path / "second", overrides=short, flags=flags)
    models = [GenomeLM.from_bundle(run["model"]) for run in (first, second)]
    assert models[0].table is not None
    assert models[1].table is not None
    assert not torch.equal(models[0].table.codebook, models[1].table.codebook)
    with pytest.raises(UserError, match="has counts in it"):
        run_pretrain(out=tmp_path / "third", overrides=["counts=null"], flags=flags)
