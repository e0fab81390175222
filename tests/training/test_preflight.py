"""Memory is predicted before the first step; what does not fit is done in another way, or refused in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mamba_data_prep.errors import UserError
from mamba_kernels.blocks import Backbone, BackboneConfig
from mamba_training import preflight
from mamba_training.preflight import Workload, available_bytes, fit_in_memory, predict, settle

GIB = 2**30


def work(batch=8, length=4096, *, chunk_size=None, layers=12, **values) -> Workload:
    config = BackboneConfig(d_model=128, layers=["mamba"] * layers, chunk_size=chunk_size)
    return Workload(config, 1_400_000, batch, length, **values)


def test_what_fits_is_left_alone():
    asked = work()
    found = fit_in_memory(asked, 3, 64 * GIB)
    assert (found.work, found.accumulation, found.note) == (asked, 3, "")


def test_the_batch_gives_way_first_and_is_made_up_for():
    found = fit_in_memory(work(), 2, 2 * GIB)
    assert found.work.batch < 8
    assert found.work.batch * found.accumulation == 16
    assert found.work.config.chunk_size is None
    assert found.footprint.total <= 2 * GIB
    assert found.note.count("\n") == 0
    assert f"batch {found.work.batch} x {found.accumulation} accumulated instead of 8" in found.note


def test_then_chunks():
    found = fit_in_memory(work(2, 2**16), 1, 3 * GIB)
    assert found.work.batch == 1
    assert found.accumulation == 2
    assert found.work.config.chunk_size is not None
    assert "chunks of" in found.note


def test_what_cannot_fit_is_refused_with_a_window_that_does():
    with pytest.raises(UserError, match=r"takes about .* more than this machine has") as caught:
        fit_in_memory(work(1, 2**20), 1, GIB)
    longest = int(str(caught.value).split("up to about ")[1].split(" tokens")[0].replace(",", ""))
    assert 10_000 < longest < 2**20
    assert predict(work(1, longest, chunk_size=1024)).total <= GIB
    assert "context-parallel" in str(caught.value)


@settings(max_examples=30, deadline=None)
@given(batch=st.integers(1, 32), log2=st.integers(8, 18), layers=st.integers(1, 24), gib=st.floats(0.5, 32))
def test_a_plan_fits_and_sees_as_many_sequences(batch, log2, layers, gib):
    asked = work(batch, 2**log2, layers=layers, chunk_size="auto")
    try:
        found = fit_in_memory(asked, 2, int(gib * GIB))
    except UserError:
        return
    assert found.work.batch * found.accumulation == 2 * batch
    assert found.footprint == predict(found.work)
    assert found.footprint.total <= gib * GIB


def test_more_of_anything_takes_more():
    base = predict(work(chunk_size="auto", layers=2, batch=1)).total
    for larger in ({"batch": 2}, {"length": 8192}, {"layers": 3}):
        assert predict(work(**{"chunk_size": "auto", "layers": 2, "batch": 1, **larger})).total > base
    assert predict(replace(work(), precision="bf16-mixed")).total < predict(work()).total
    assert predict(replace(work(), precision="64-true")).total > predict(work()).total


def test_several_processes_are_told_but_not_changed(monkeypatch):
    monkeypatch.setattr(preflight, "available_bytes", lambda device: 4 * GIB)
    found = settle(work(), 1, 4)
    assert found.work == work()
    assert "1.0 GiB are free for each" in found.note
    assert settle(work(32), 1, 1).work.batch < 32


@pytest.mark.parametrize("version", [1, 2])
def test_a_containers_limit_counts(tmp_path, version):
    folder = tmp_path / ("" if version == 2 else "memory") / "jobs/one"
    folder.mkdir(parents=True)
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    (folder / names[0]).write_text("max\n" if version == 2 else f"{2**63 - 4096}\n")
    (folder / names[1]).write_text("1000\n")
    (folder / "memory.stat").write_text("inactive_file 0\n")
    (folder.parent / names[0]).write_text(f"{GIB}\n")
    (folder.parent / names[1]).write_text(f"{GIB // 2}\n")
    (folder.parent / "memory.stat").write_text(f"anon 5\ninactive_file {GIB // 4}\n")
    own = tmp_path / "cgroup"
    own.write_text("0::/jobs/one\n" if version == 2 else "3:cpu:/other\n5:memory:/jobs/one\n")
    assert min(preflight._container_rooms(tmp_path, own)) == 3 * GIB // 4
    assert min(preflight._container_rooms(tmp_path, tmp_path / "absent")) > 2**60
    assert 0 < available_bytes() < 2**50


def test_the_prediction_counts_what_autograd_keeps():
    config = BackboneConfig(d_model=64, layers=["mamba"] * 3, chunk_size=None)
    backbone, kept = Backbone(config), {}

    def pack(tensor):
        if 2048 in tensor.shape:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y, _ = backbone(torch.randn(1, 2048, 64, requires_grad=True))
    predicted = predict(Workload(config, 0, 1, 2048, outputs=0)).kept
    assert y.requires_grad
    assert sum(kept.values()) == pytest.approx(predicted, rel=0.2)


def test_a_layer_that_takes_a_sequence_whole_is_not_made_smaller_by_chunks():
    def working(mixer, chunk):
        config = BackboneConfig(d_model=64, layers=["mamba", mixer], chunk_size=chunk)
        return predict(Workload(config, 0, 1, 2**16)).working

    assert working("mamba", 1024) < 0.1 * working("mamba", 2**15)
    assert working("hyena", 1024) == working("hyena", 2**15) > 2 * working("mamba", 2**15)


@pytest.mark.slow
def test_predictions_come_within_a_fifth_of_measured_peaks():
    root = Path(__file__).resolve().parents[2]
    rows = []
    cases = {"length": 1024}, {"length": 4096}, {"length": 8192, "chunk_size": 1024}, {"length": 16384}
    for case in (*cases, {"length": 8192, "mixer": "s4d", "layers": 3}):
        full = {"batch": 1, "width": 128, "layers": 12, "precision": "32-true", "chunk_size": "auto"}
        text = json.dumps({**full, "bidirectional": "none", **case})
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.preflight", "--one", text],
            cwd=root, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    assert [row["predicted / measured"] for row in rows] == pytest.approx([1.0] * len(rows), abs=0.2)
