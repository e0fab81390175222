"""What a run tells when it is over: the summary on the screen, the model card, and the learning curve."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from genomamba.config import PretrainConfig
from genomamba.language_model.model import BUNDLE_KIND, GenomeLM
from mamba_data_prep.genomes.genome import Genome
from mamba_data_prep.genomes.reading import RegionsRead
from mamba_data_prep.genomes.splits import Split
from mamba_data_prep.genomes.windows import WindowTable
from mamba_data_prep.provenance import recorded_command, versions
from mamba_training import model_card as cards
from mamba_training.bundle import save_bundle
from mamba_training.learning_curve import Curves, draw_learning_curve

GUESSING_BITS = 2.0
CURVES = Curves(
    x="tokens",
    nats=math.log(2),
    held_out={"val_bits": "validation", "markov_bits": "best Markov model of the same bases"},
    labels=("tokens", "bits per base"),
    guess=GUESSING_BITS,
)
"""What the picture of a run shows."""

_JUDGES = {"markov": "the same bases", "markov_all": "all training bases, both strands"}
"""The Markov models beside a language model, by their place in a result: what each was counted on."""


_TABLE = "counts in the model alone"


def summary(result: dict[str, Any]) -> str:
    """The comparison with the Markov model, as a table for the terminal."""
    rows = _rows(result)
    width = max(len(row[0]) for row in rows)
    lines = [f"{'':{width}}  {'validation':>10}  {'test':>10}  {'perplexity':>10}"]
    lines += [f"{name:{width}}  {valid:10.4f}  {test:10.4f}  {2**test:10.4f}" for name, valid, test in rows]
    verdicts = [*_verdicts(result), *_by_length(result)]
    minutes, seconds = divmod(round(result["seconds"]), 60)
    return "\n".join(
        [
            f"bits per base on held-out windows of {result['window']:,} bases",
            *lines,
            *verdicts,
            f"{result['step']:,} steps, {result['tokens']:,} tokens, {minutes}:{seconds:02d} minutes; "
            f"model in {result['model']}",
        ]
    )


def _rows(result: dict[str, Any]) -> list[tuple[str, float, float]]:
    ours = f"this model ({result['n_parameters']:,} parameters)", result["valid"]["bits"], result["test"]["bits"]
    markov = [
        (f"Markov, order {judge['order']}, m = {judge['strength']:g}, {of}", judge["valid_bits"], judge["test_bits"])
        for judge, of in ((result[key], of) for key, of in _JUDGES.items() if key in result)
    ]
    if (sides := result.get("both_sides")) is not None:
        markov.append((f"{_sides(sides)}, m = {sides['strength']:g}", sides["valid_bits"], sides["test_bits"]))
    alone = result.get("counts_alone")
    table = [] if alone is None else [(_TABLE, alone["valid_bits"], alone["test_bits"])]
    return [ours, *table, *markov, ("guessing", GUESSING_BITS, GUESSING_BITS)]


def _verdicts(result: dict[str, Any]) -> list[str]:
    """What the model saves over its own counts and over each Markov model."""
    found = [_verdict(result[key], f"the Markov model of {of}") for key, of in _JUDGES.items() if key in result]
    if (sides := result.get("both_sides")) is not None:
        found.append(_verdict(sides, f"the {_sides(sides)}"))
    alone = result.get("counts_alone")
    return found if alone is None else [_verdict(alone, f"the {_TABLE}"), *found]


def _by_length(result: dict[str, Any]) -> list[str]:
    """The perplexity of the same test bases in windows of each length, in a line; nothing of a run on one length."""
    rows = [f"{row['perplexity']:.4f} at {row['length']:,}" for row in result.get("by_length", [])]
    return [f"perplexity of the same test bases by the windows' length: {', '.join(rows)}"] if rows else []


def _context(result: dict[str, Any]) -> dict[str, str]:
    """The card's section on lengths, of a run in stages."""
    if "by_length" not in result:
        return {}
    lengths = [
        (f"{row['length']:,}", f"{row['bits']:.4f}", f"{row['perplexity']:.4f}", f"{row['n_bases']:,}")
        for row in result["by_length"]
    ]
    places = [
        (
            f"{row['first']:,} to {row['last']:,}",
            f"{row['bits']:.4f}",
            f"{row['perplexity']:.4f}",
            f"{row['n_bases']:,}",
        )
        for row in result["by_position"]
    ]
    where = "bases up to the nearer end" if "both_sides" in result else "bases before"
    columns = ("bits per base", "perplexity", "bases")
    text = f"""The same test bases in windows of each length, and those of the longest windows by where they stand.

{cards.markdown_table(("window", *columns), lengths)}

{cards.markdown_table((where, *columns), places)}"""
    return {"Perplexity by length and by position": text}


def _sides(judge: dict[str, Any]) -> str:
    return f"counts between {judge['neighbours']} bases on either side, all training bases, both strands"


def _verdict(judge: dict[str, Any], other: str) -> str:
    """What the model saves over another, on test, with the standard error over windows."""
    saved, error = judge["saved_bits"], judge["saved_bits_error"]
    word = "better" if saved > 0 else "worse"
    if max(abs(saved), error or 0) < 5e-5:
        return f"no different on test from {other}, to the fourth decimal of a bit per base"
    if error is None:
        return f"{abs(saved):.4f} bits per base {word} on test than {other}, on a single window"
    unsure = ", which is less than two standard errors" if abs(saved) < 2 * error else ""
    return f"{abs(saved):.4f} +- {error:.4f} bits per base {word} on test than {other}{unsure}"


def provenance(
    settings: PretrainConfig,
    genome: Genome,
    split: Split,
    result: dict[str, Any],
    begun: dict[str, Any] | None = None,
    read: WindowTable | None = None,
) -> dict[str, Any]:
    """Everything needed to know, and to repeat, what a model was made from; plain values for JSON.

    Args:
        settings: of the run.
        genome: that was read.
        split: of it.
        result: what the run reached.
        begun: `Beginning.record` of the model that it went on with.
        read: the windows that the model was trained on, where these are more than those of the split.
    """
    return {
        "genome": {
            "file": genome.path.name,
            "records": len(genome),
            "bases": int(genome.lengths.sum()),
            **genome.fingerprint.to_dict(),
        },
        "split": split.description,
        **({} if begun is None else {"from": {key: begun[key] for key in ("name", "sha256", "tokens", "commands")}}),
        **_read(RegionsRead.of(genome, split.train if read is None else read), begun),
        "settings": settings.model_dump(mode="json", exclude={"fasta", "bed", "from_model", "content"}),
        "result": {key: value for key, value in result.items() if key not in ("out", "model")},
        "command": recorded_command(),
        "versions": versions(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _read(now: RegionsRead, begun: dict[str, Any] | None) -> dict[str, Any]:
    """All that a model has read, in this run and before; nothing where the model before does not say."""
    if begun is None:
        return {"read": {"genomes": [now.to_dict()], "sequences": []}}
    if begun["read"] is None:
        return {}
    before = [RegionsRead.from_dict(one) for one in begun["read"]["genomes"]]
    same = [one for one in before if one.xxh3_128 == now.xxh3_128]
    others = [one for one in before if one.xxh3_128 != now.xxh3_128]
    for one in same:
        now = now | one
    return {"read": {**begun["read"], "genomes": [one.to_dict() for one in (*others, now)]}}


def save_language_model(out: Path, model: GenomeLM, settings: PretrainConfig, made: dict[str, Any]) -> None:
    """Write the bundle `out/model` with its card, and the picture of the run beside it.

    Args:
        out: the run folder.
        model: with the best weights.
        settings: of the run.
        made: what `provenance` says.
    """
    config = {
        "format": 1,
        "kind": BUNDLE_KIND,
        "model": settings.model.model_dump(mode="json"),
        "objective": settings.objective.model_dump(mode="json"),
        "table": None if model.table is None else model.table.shape.model_dump(),
        "window": settings.data.window,
        "training": made,
    }
    save_bundle(out / "model", model.state_dict(), config, model_card(made))
    draw_learning_curve(out / "learning_curve.png", [out / "metrics.csv"], CURVES, title=out.name)


def model_card(made: dict[str, Any]) -> str:
    """Writes the model card, as Markdown."""
    genome, result = made["genome"], made["result"]
    rows = [(name, f"{valid:.4f}", f"{test:.4f}", f"{2**test:.4f}") for name, valid, test in _rows(result)]
    asked = "Predicts the next base from the bases before it"
    if "both_sides" in result:
        asked = "Predicts hidden bases from those on both sides"
    about = f"""{asked} ({result["n_parameters"]:,} parameters, trained on
windows of {result["window"]:,} bases). Made by `{made["command"]}` on {made["created"]}."""
    if (begun := made.get("from")) is not None:
        about += f"\nIt went on from `{begun['name']}`, which had read {begun['tokens']:,} tokens"
        commands = "; ".join(f"`{command}`" for command in begun.get("commands", []))
        about += f" and was made by {commands}." if commands else "."
    data = f"""{genome["records"]:,} record(s), {genome["bases"]:,} bases:

{cards.files_table({genome["file"]: genome})}

Split (no base is in two parts): {_described(made["split"])}."""
    judges = """The Markov models are the best interpolated ones, their order and smoothing chosen on validation: one
counted on the bases that the model had read, the other on all training bases."""
    if "both_sides" in result:
        judges = """The counts are asked for the same hidden bases; how many neighbours they look at, and their
smoothing, are chosen on validation."""
    figures = f"""Bits per base on windows the model was not trained on; perplexity on the test windows. {judges}

{cards.markdown_table(("", "validation", "test", "perplexity"), rows)}

{"; ".join(_verdicts(result))}.

{result["step"]:,} steps, {result["tokens"]:,} tokens, {result["seconds"]:,.0f} seconds; weights of step
{result["best_step"]:,}, the best on validation."""
    sections = {
        "Data": data,
        "Held-out figures": figures,
        **_context(result),
        **_shipped(made.get("shipped")),
        "Limits": "It has seen one genome. It scores and represents DNA; it is no evidence of function, and nothing\n"
        "for clinical use.",
        "Settings": cards.settings_block(made["settings"]),
        "Versions": cards.versions_line(made["versions"]),
    }
    return cards.model_card("DNA language model", about, sections)


def _shipped(more: dict[str, Any] | None) -> dict[str, str]:
    """What the card of a model that ships says beyond that of a run."""
    if more is None:
        return {}
    tables = {"Bits by context": more["by_context"], "Elsewhere": more["others"]}
    sections = {
        title: cards.markdown_table(tuple(rows[0]), [tuple(map(str, row.values())) for row in rows])
        for title, rows in tables.items()
        if rows
    }
    return {"Source and terms": f"{more['source']}. {more['terms']}. Trained on {more['machine']}.", **sections}


def _described(split: dict[str, Any]) -> str:
    plain = {key: value for key, value in split.items() if isinstance(value, str | int | float | list)}
    return ", ".join(f"{key} {value}" for key, value in plain.items()) or "see config.json"
