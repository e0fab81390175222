"""Scores of alleles against a plain float64 recomputation, whatever stands beside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from genomamba import tokens
from genomamba.config import ObjectiveConfig
from genomamba.language_model.model import GenomeLM
from genomamba.variants.causal import CausalScorer
from genomamba.variants.masked import FLANK, MaskedScorer
from genomamba.variants.scores import AlleleScores, score_sites, score_variants
from genomamba.variants.sites import REASONS, Placing, Sequences
from mamba_data_prep.genomes.genome import Genome
from mamba_data_prep.genomes.vcf import VcfRecord

WINDOW = 64


@pytest.fixture
def genome(write_fasta: Callable[..., Path]) -> Genome:
    """A contig with lower case, N, and stretches of the long contexts that the models' tables hold; and small ones."""
    rng = np.random.default_rng(5)
    letters = tokens.decode(rng.integers(7, 11, (2, 300)).astype(np.uint8)[0])
    body = letters + letters[20:90] + letters[::-1]
    body = body[:100] + body[100:150].lower() + body[150:400] + "NNNRN" + body[405:]
    return Genome.open(write_fasta({"chr1": body, "short": "ACGTA", "one": "A"}))


def record(genome: Genome, position: int, ref: int, *alternatives: str, chrom: str = "chr1") -> VcfRecord:
    """A record at a 1-based position whose REF are so many bases of the genome."""
    reference = genome.fetch(chrom, position - 1, position - 1 + ref).tobytes().decode()
    other = {"A": "C", "C": "G", "G": "T", "T": "A"}
    found = tuple(other[reference[0]] if one == "snv" else one for one in alternatives)
    return VcfRecord(1, b"", chrom, position, ".", reference, found)


def records(genome: Genome) -> list[VcfRecord]:
    """SNVs, insertions, deletions, several alleles, contig ends, N and lower case in the window."""
    length = genome.records[0].length
    return [
        record(genome, 200, 1, "snv"),
        record(genome, 330, 1, "snv"),  # inside a stretch whose long contexts are held
        record(genome, 335, 1, "CATTG", "snv"),
        record(genome, 340, 7, "A", "TTTTTTT", "acg"),
        record(genome, 120, 1, "snv"),
        record(genome, 120, 1, "AA"),
        record(genome, 395, 2, "G"),
        record(genome, 412, 1, "snv"),
        record(genome, 1, 1, "snv", "TTA"),
        record(genome, 3, 2, "G"),
        record(genome, length, 1, "snv"),
        record(genome, length - 1, 2, "A"),
        record(genome, 2, 1, "snv", chrom="short"),
    ]


def exact(model: GenomeLM) -> GenomeLM:
    twin = GenomeLM(model.config, None if model.table is None else model.table.shape, model.objective.config)
    twin = twin.double().eval()
    twin.load_state_dict(model.state_dict())
    return twin


def texts(genome: Genome, one: VcfRecord, window: int = WINDOW) -> tuple[str, str]:
    """The flanks of a record, by plain slicing."""
    whole = genome.fetch(one.chrom, 0, genome.records[genome.number_of(one.chrom)].length).tobytes().decode()
    start, left = one.position - 1, window // 2
    end = start + len(one.reference)
    return whole[max(0, start - left) : start], whole[end : end + window - left - 1]


def complement(text: str) -> str:
    return text.upper()[::-1].translate(str.maketrans("ACGT", "TGCA"))


def encoded(text: str) -> torch.Tensor:
    return torch.from_numpy(tokens.encode(text))[None]


@torch.no_grad()
def log_likelihood(model: GenomeLM, text: str) -> float:
    """The definition: the sum over all bases but the first of log2 p given all before."""
    ids, total = encoded(text), 0.0
    p = model(ids)[0, :, 7:11].log_softmax(dim=1) / np.log(2)
    for place in range(1, ids.shape[1]):
        base = int(ids[0, place]) - 7
        total += float(p[place - 1, base]) if 0 <= base < 4 else 0.0
    return total


@torch.no_grad()
def hidden_base(model: GenomeLM, text: str, place: int) -> np.ndarray:
    ids = encoded(text)
    ids[0, place] = tokens.MASK
    return (model(ids)[0, place, 7:11].log_softmax(dim=0) / np.log(2)).numpy()


def pseudo(model: GenomeLM, before: str, allele: str, after: str) -> float:
    text, first = before + allele + after, len(before)
    places = range(max(0, first - FLANK), min(len(text), first + len(allele) + FLANK))
    return sum(hidden_base(model, text, i)["ACGT".index(text[i])] for i in places if text[i] in "ACGT")


def expected(model: GenomeLM, before: str, after: str, ref: str, alt: str) -> tuple[float, np.ndarray, np.ndarray]:
    """The bits gained and the alleles' vectors on one strand."""
    alt = alt.upper()
    if model.objective.looks_ahead:
        gain = log_likelihood(model, before + alt + after) - log_likelihood(model, before + ref + after)
    elif len(ref) == len(alt) == 1:
        p = hidden_base(model, before + ref + after, len(before))
        gain = float(p["ACGT".index(alt)] - p["ACGT".index(ref)])
    else:
        gain = pseudo(model, before, alt, after) - pseudo(model, before, ref, after)
    with torch.no_grad():
        vectors = [
            model.embeddings(encoded(before + one + after))[0, len(before) + len(one) - 1].numpy() for one in (ref, alt)
        ]
    return gain, vectors[0], vectors[1]


def check(found: AlleleScores, model: GenomeLM, before: str, after: str, ref: str, alt: str) -> None:
    forward, *one = expected(model, before, after, ref, alt)
    turned = complement(after), complement(before), complement(ref), complement(alt)
    reverse, *other = expected(model, *turned)
    reference, alternative = (np.concatenate(pair) for pair in zip(one, other, strict=True))
    assert found.forward == pytest.approx(forward, abs=1e-4)
    assert found.reverse == pytest.approx(reverse, abs=1e-4)
    assert found.ratio == pytest.approx((forward + reverse) / 2, abs=1e-4)
    assert found.l2 == pytest.approx(float(np.sqrt(((reference - alternative) ** 2).sum())), abs=1e-4)
    cosine = reference @ alternative / np.sqrt((reference @ reference) * (alternative @ alternative))
    assert found.cosine == pytest.approx(1 - float(cosine), abs=1e-5)


MODELS = {
    "causal": {},
    "causal, network alone": {"counts": False},
    "masked": {"kind": "masked", "bidirectional": "add"},
    "equivariant": {"kind": "masked", "bidirectional": "add", "reverse_complement": "equivariant"},
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest, make_language_model: Callable[..., GenomeLM]) -> GenomeLM:
    return make_language_model(**MODELS[request.param])


def scorer(model: GenomeLM, batch_bases: int = 2**13) -> CausalScorer | MaskedScorer:
    return (CausalScorer if model.objective.looks_ahead else MaskedScorer)(model, batch_bases)


def scored(genome: Genome, asked: list[VcfRecord], how: CausalScorer | MaskedScorer) -> list[list[AlleleScores | None]]:
    placing = Placing(genome, WINDOW)
    return score_variants([placing.variant(one) for one in asked], placing, how)


def test_every_allele_has_the_scores_of_a_plain_float64_recomputation(model: GenomeLM, genome: Genome) -> None:
    asked = records(genome)
    if not model.objective.looks_ahead:
        asked = [asked[i] for i in (0, 2, 8)]
    twin = exact(model)
    compared = 0
    for one, scores in zip(asked, scored(genome, asked, scorer(model)), strict=True):
        before, after = texts(genome, one)
        for allele, found in zip(one.alternatives, scores, strict=True):
            assert found is not None
            check(found, twin, before, after, one.reference, allele)
            compared += 1
    assert compared == (17 if model.objective.looks_ahead else 5)


def test_long_contexts_are_held_where_an_allele_begins(genome: Genome, make_language_model) -> None:
    """Else nothing would be shown of contexts of the table that cross from the shared beginning into an allele."""
    model = make_language_model()
    assert model.table is not None
    ids = encoded(genome.fetch("chr1", 0, 400).tobytes().decode())
    assert (model.table.lookup(ids).long[0, 329:345] >= 0).all()


def test_batches_order_and_neighbours_change_nothing(model: GenomeLM, genome: Genome) -> None:
    asked = records(genome)
    if not model.objective.looks_ahead:
        asked = [asked[i] for i in (0, 2, 4, 8)]
    whole = scored(genome, asked, scorer(model))
    alone = [scored(genome, [one], scorer(model))[0] for one in asked]
    _same(whole, alone)
    order = np.random.default_rng(1).permutation(len(asked))
    for batch_bases in (1, 70, 300, 10**6):
        mixed = scored(genome, [asked[i] for i in order], scorer(model, batch_bases))
        _same([whole[i] for i in order], mixed)


def _same(some: list[list[AlleleScores | None]], others: list[list[AlleleScores | None]]) -> None:
    for one, other in zip(some, others, strict=True):
        assert np.allclose(np.array(one, float), np.array(other, float), rtol=0, atol=1e-5)


def test_the_state_before_a_site_is_computed_once(genome: Genome, make_language_model, monkeypatch) -> None:
    """So many bases go through the model as the shared beginnings and the alleles' ends have, and no more."""
    model, seen = make_language_model(), []
    real = GenomeLM.advance
    monkeypatch.setattr(
        GenomeLM, "advance", lambda self, ids, before=None: seen.append(ids.numel()) or real(self, ids, before)
    )
    asked = [
        record(genome, 200, 1, "snv"),
        record(genome, 200, 1, "A" if "A" not in genome.fetch("chr1", 199, 200).tobytes().decode() else "G"),
    ]
    scored(genome, asked, scorer(model))
    assert sum(seen) == (32 + 3 * 32) + (31 + 3 * 33)


def test_strands_change_places_when_the_genome_is_turned(genome: Genome, model: GenomeLM) -> None:
    rng = np.random.default_rng(2)
    sites = [
        Sequences(rng.integers(7, 11, 30).astype(np.uint8), rng.integers(7, 11, 20).astype(np.uint8),
                  (np.array([7], np.uint8), np.array([9, 8], np.uint8)))
    ]  # fmt: skip
    ((one,),) = score_sites(sites, scorer(model))
    ((other,),) = score_sites([site.other_strand() for site in sites], scorer(model))
    assert (one.forward, one.reverse) == pytest.approx((other.reverse, other.forward), abs=1e-5)
    if model.config.reverse_complement == "equivariant":
        assert one.forward == pytest.approx(one.reverse, abs=1e-4)


REFUSED = {
    "no_contig": ("chr9", 5, "A", ("C",)),
    "off_contig": ("short", 5, "AC", ("A",)),
    "reference_mismatch": ("short", 2, "G", ("C",)),
    "unknown_reference": ("chr1", 401, "N", ("C",)),
    "not_dna": ("short", 1, "A", ("AN",)),
    "symbolic": ("short", 1, "A", ("<DEL>",)),
    "breakend": ("short", 1, "A", ("A[chr1:7[",)),
    "overlapping_deletion": ("short", 1, "A", ("*",)),
    "same_as_reference": ("short", 1, "A", ("a",)),
    "too_long": ("short", 1, "A", ("A" * (WINDOW + 1),)),
    "no_context": ("one", 1, "A", ("C",)),
    "no_alternative": ("short", 1, "A", ()),
}


@pytest.mark.parametrize("reason", REASONS)
def test_what_cannot_be_scored_has_its_reason(reason: str, genome: Genome) -> None:
    chrom, position, reference, alternatives = REFUSED[reason]
    placing = Placing(genome, WINDOW)
    variant = placing.variant(VcfRecord(1, b"", chrom, position, ".", reference, alternatives))
    assert variant.reasons == (() if reason == "no_alternative" else (reason,))
    assert placing.reasons == {reason: 1}
    assert (placing.records, placing.alleles) == (1, 0)


def test_a_structural_variant_may_leave_its_reference_out(genome: Genome) -> None:
    variant = Placing(genome, WINDOW).variant(VcfRecord(1, b"", "short", 1, ".", "N", ("<DEL>", "T")))
    assert variant.reasons == ("symbolic", "not_dna")


@pytest.mark.parametrize(
    ("allele", "reason"),
    [
        *[(allele, "breakend") for allele in (".A", "A.", "]<x>:7]A")],
        *[("<*>", "symbolic"), (".", "not_dna"), ("AR", "not_dna")],
    ],
)
def test_other_forms_of_alleles_are_told_apart(allele: str, reason: str, genome: Genome) -> None:
    variant = Placing(genome, WINDOW).variant(VcfRecord(1, b"", "short", 1, ".", "A", (allele, "T")))
    assert variant.reasons == (reason, None)


def test_a_masked_snv_asks_one_question_a_strand(genome: Genome, make_language_model, monkeypatch) -> None:
    model, asked = make_language_model(**MODELS["masked"]), []
    real = GenomeLM.forward
    monkeypatch.setattr(
        GenomeLM, "forward", lambda self, ids: asked.append(int((ids == tokens.MASK).sum())) or real(self, ids)
    )
    scored(genome, [record(genome, 200, 1, "snv")], scorer(model))
    assert asked == [1, 1]
    assert ObjectiveConfig(kind="masked") == model.objective.config
