"""`genomamba generate`: new sequences from a causal language model, each going on from a prompt or from nothing."""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from genomamba import tokens
from genomamba.commands.checks import check_generate
from genomamba.language_model.model import GenomeLM
from genomamba.language_model.sampling import Sampling, check_causal, prompted, sampled
from genomamba.prediction.counting import CountingProgress
from genomamba.prediction.stretches import record_stretches
from mamba_data_prep.atomic import atomic_write
from mamba_data_prep.errors import Interrupted, UserError
from mamba_data_prep.genomes.fasta import stream_fasta
from mamba_data_prep.provenance import write_sidecar
from mamba_training.bundle import load_bundle
from mamba_training.devices import pick_device

_LINE = 60
_PIECE = 2**16
_LETTERS = np.frombuffer(tokens.BASES.encode(), np.uint8)


class _Prompt(NamedTuple):
    """What sequences begin with: its name in the file, and its token ids."""

    name: str
    ids: np.ndarray


def run_generate(
    *,
    model: Path,
    length: int,
    out: Path,
    prompt: Path | None = None,
    number: int = 1,
    temperature: float | int = 1.0,
    top_k: int = 4,
    top_p: float | int = 1.0,
    seed: int = 0,
    batch: int = 64,
    with_prompt: bool = False,
    device: str = "auto",
    overwrite: bool = False,
) -> dict[str, Any]:
    """Writes sequences drawn from a model as FASTA, with the settings in each header, and a sidecar.

    Args:
        model: bundle or run folder of a language model that foretells the next base.
        length: bases to generate for each sequence.
        out: `.fa` or `.fasta`, also `.gz`.
        prompt: FASTA; every record of it is gone on with. Without it sequences begin from nothing.
        number: sequences for each prompt.
        temperature, top_k, top_p: see `genomamba.language_model.sampling.Sampling`.
        seed: sequence `i` of prompt `j` depends on the model, its prompt and (seed, j, i) alone.
        batch: sequences drawn side by side.
        with_prompt: write the prompt's bases before the generated ones.
        device: auto, cpu or cuda.
        overwrite: replace an existing output.

    Returns:
        `sequences`, `bases` and `seconds`, and under `text` the same for people.

    Raises:
        UserError: something about the model, the prompt or the output; nothing is left under `out`.
        Interrupted: stopped; nothing is left.
    """
    check_generate(model=model, prompt=prompt, out=out, overwrite=overwrite)
    chosen = pick_device(device)
    network = GenomeLM.from_bundle(model).to(chosen)
    check_causal(network)
    how = Sampling(temperature, top_k, top_p)
    settings = {
        "length": length, "number": number, "temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed,
        "with_prompt": with_prompt, "device": str(chosen),
    }  # fmt: skip
    name = model.parent.name if model.name == "model" else model.name
    drawn = f"model={name} temperature={temperature:g} top_k={top_k} top_p={top_p:g} seed={seed}"
    progress = CountingProgress(None if prompt else number * length, done="drew", what="bases")
    began, sequences = time.perf_counter(), 0
    try:
        with progress.shown(), _opened(out) as file:
            for place, one in enumerate(_prompts(prompt)):
                state = prompted(network, one.ids)
                for first in range(0, number, batch):
                    samples = range(first, min(first + batch, number))
                    count = len(samples)
                    seeds = [(seed, place, sample) for sample in samples]
                    found = sampled(network, state, length, seeds, how, lambda count=count: progress.advance(count))
                    for sample, ids in zip(samples, found, strict=True):
                        about = f"{drawn} sample={sample + 1} prompt={one.name or 'none'}:{len(one.ids)}"
                        head = f">{one.name or 'generated'}_{sample + 1} {about}\n"
                        file.write(head.encode())
                        _write_lines(file, np.concatenate([one.ids, ids]) if with_prompt else ids)
                        sequences += 1
    except KeyboardInterrupt:
        raise Interrupted("by the keyboard; nothing was written") from None
    seconds = time.perf_counter() - began
    result = {"sequences": sequences, "bases": sequences * length, "seconds": seconds}
    made = load_bundle(model).config.get("training", {}).get("seed")
    inputs = [] if prompt is None else [prompt]
    write_sidecar(out, inputs=inputs, model=model, seed=made, extra={"settings": settings, "result": result})
    rate = result["bases"] / max(seconds, 1e-9)
    text = f"{sequences:,} sequences of {length:,} bases in {seconds:.1f} s ({rate:,.0f} bases/s) -> {out}"
    return {"out": str(out), **result, "text": text}


def _prompts(path: Path | None) -> Iterator[_Prompt]:
    """The records of a file, or one that is empty."""
    if path is None:
        yield _Prompt("", np.zeros(0, np.uint8))
        return
    some = False
    for stretch in record_stretches(stream_fasta(path, _PIECE, unique_ids=False)):
        some = True
        yield _Prompt(stretch.record, stretch.read(0, stretch.length).copy())
    if not some:
        raise UserError("holds no record to go on with", path=path, fix="leave --prompt out to begin from nothing")


@contextmanager
def _opened(out: Path) -> Iterator[Any]:
    """The file, which appears whole or not at all, compressed where its name says so."""
    with atomic_write(out, "wb") as raw:
        if not out.name.lower().endswith(".gz"):
            yield raw
            return
        with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as file:
            yield file


def _write_lines(file: Any, ids: np.ndarray) -> None:
    """Bases in lines of sixty; N where a prompt has no base."""
    known = (ids >= tokens.FIRST_BASE) & (ids < tokens.FIRST_BASE + 4)
    letters = np.where(known, _LETTERS[np.where(known, ids - tokens.FIRST_BASE, 0)], ord("N")).astype(np.uint8)
    for first in range(0, len(letters), _LINE):
        file.write(letters[first : first + _LINE].tobytes() + b"\n")
