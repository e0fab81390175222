"""What `genomamba classify` counts and tells at its end, and the settings that it refuses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from genomamba.classifier.config import TypicalShape
from genomamba.classifier.network import SequenceClassifier
from genomamba.classifier.typicality import Typicality
from genomamba.commands.classify import Summary, _check_typicality, _hint, _pass_over, _window_and_stride
from genomamba.prediction.partial import Kept
from genomamba.prediction.record_windows import RecordWindow
from genomamba.prediction.rows import Predictions
from mamba_data_prep.errors import UserError

CLASSES = ("a", "b", "c")


def rows(predicted: list[str], reasons: list[str], typicality: list[float]) -> Predictions:
    n = len(predicted)
    zeros = np.zeros(n)
    return Predictions(CLASSES, ["r"] * n, zeros, zeros, ["+"] * n, zeros, predicted, np.full((n, 3), 1 / 3), reasons,
                       np.array(typicality))  # fmt: skip


def test_rows_of_all_chunks_and_of_an_earlier_run_are_counted() -> None:
    summary = Summary(CLASSES)
    summary.add(rows(["a", "b", "abstain"], ["", "", "too short"], [0.5, 0.009, np.nan]))
    summary.add(rows(["a", "abstain"], ["", "too short"], [0.01, 0.0]))
    assert (summary.rows, summary.judged, summary.unlike) == (5, 4, 2)
    assert (summary.counts, summary.reasons) == ({"a": 2, "b": 1, "abstain": 2}, {"too short": 2})
    kept = {"counts": {"b": 3, "abstain": 1}, "reasons": {"no bases": 1}, "judged": 3, "unlike": 1}
    summary.take_over(Kept(Path("out.partial.tsv"), 4, kept))
    summary.take_over(Kept(Path("out.partial.tsv"), 2, {}))
    result = summary.result()
    assert (result["rows"], result["judged"], result["unlike"]) == (11, 7, 3)
    assert result["counts"] == {"a": 2, "b": 4, "abstain": 3}
    assert result["reasons"] == {"too short": 2, "no bases": 1}


def test_the_summary_tells_the_classes_found_in_their_order_and_what_is_unlike_the_training_data() -> None:
    counts = Counter({"c": 1_200, "a": 1, "abstain": 34})
    summary = Summary(CLASSES, 1_235, 50_000, counts=counts, judged=1_000, unlike=25, seconds=2.0)
    first, *shown, foreign = summary.text(Path("out.tsv")).split("\n")
    assert first == "1,235 rows, 50,000 bases in 2.0 s (25,000 bases/s) -> out.tsv"
    assert [line.split() for line in shown] == [["a", "1"], ["c", "1,200"], ["abstain", "34"]]
    assert foreign.startswith("25 of 1,000 rows (2.5%) are unlike the training data: typicality below 0.01")
    unknown = replace(summary, judged=0, unlike=0, seconds=0.0)
    assert "training data" not in unknown.text(Path("out.tsv"))
    assert unknown.text(Path("out.tsv"), "look again").endswith("\nhint: look again")


def windows(*lasts: bool) -> list[RecordWindow]:
    return [RecordWindow("r", n, n + 1, np.zeros(1, np.uint8), 1, 1, last) for n, last in enumerate(lasts)]


@pytest.mark.parametrize(("kept", "per_window", "first"), [(1, True, 1), (3, True, 3), (1, False, 2), (2, False, 3)])
def test_an_earlier_run_is_gone_on_with_after_the_windows_of_its_rows(kept: int, per_window: bool, first: int) -> None:
    left = iter(windows(False, True, True, False, True))
    _pass_over(left, kept, per_window)
    assert next(left).start == first


def told(reason: str, *, rows: int = 3, abstain: int = 3, window: int = 64, min_bases: int = 20) -> str | None:
    summary = Summary(CLASSES, rows, counts=Counter(abstain=abstain), reasons=Counter({reason: 2, "other": 1}))
    return _hint(summary, {"window": window, "min_bases": min_bases})


def test_a_hint_names_what_to_change_where_every_row_abstains() -> None:
    assert told("no bases", abstain=2) is None
    assert told("no bases", rows=0, abstain=0) is None
    for reason, words in {
        "no bases": "whole", "no known base": "masked by N", "too short": "fewer than 20 known bases are not scored",
        "too few known bases": "windows of fewer than 20", "confidence below 0.9": "lower --min-confidence",
    }.items():  # fmt: skip
        hint = told(reason)
        assert hint is not None
        assert f"because of '{reason}'" in hint
        assert words in hint
    narrow, just = told("too short", window=19), told("too short", window=20)
    assert narrow is not None
    assert "--min-bases 19" in narrow
    assert just == told("too short")


def test_windows_are_the_model_s_own_and_strides_whole_windows_unless_given(
    make_classifier: Callable[..., SequenceClassifier],
) -> None:
    plain, placed = make_classifier(), make_classifier(positions=True)
    assert _window_and_stride(plain, None, None) == (64, 64)
    assert _window_and_stride(plain, 100, None) == (100, 100)
    assert _window_and_stride(plain, None, 64) == (64, 64)
    assert _window_and_stride(placed, 64, 10) == (64, 10)
    with pytest.raises(UserError, match="skips bases"):
        _window_and_stride(plain, None, 65)
    with pytest.raises(UserError, match="knows positions for"):
        _window_and_stride(placed, 65, None)


def test_a_model_that_does_not_know_what_is_typical_is_asked_for_no_least_typicality(
    make_classifier: Callable[..., SequenceClassifier],
) -> None:
    network = make_classifier()
    _check_typicality(network, Path("model"), 0.0)
    with pytest.raises(UserError, match="older version"):
        _check_typicality(network, Path("model"), 0.01)
    network.know_typical(Typicality(TypicalShape(lengths=[64]), 3))
    _check_typicality(network, Path("model"), 0.01)
