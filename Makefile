# Every target stands alone: it makes `.venv` from the pinned versions if that is missing or out of date, then does its work.
# Another Python: `make demo PYTHON=python3.12`. Another place for the environment: `make test VENV=/tmp/env`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH_STAMP := $(VENV)/.installed-bench
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# Workers take one core each; more than eight gain nothing and cost memory.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal
# Which slow proofs, as pytest's -k takes it; all by default.
PROOFS ?=

.PHONY: help demo test test-slow lint format bench wheel clean

help:
	@echo "make demo       pretrain, fine-tune and classify on the shipped DNA; ends in a table and a picture"
	@echo "make test       the test suite, minutes"
	@echo "make test-slow  the proofs that take longer"
	@echo "make lint       style and types"
	@echo "make format     put the style right"
	@echo "make bench      measure this machine; writes benchmarks/results/"
	@echo "make wheel      build dist/*.whl and dist/*.tar.gz"
	@echo "make clean      remove the environment, builds and the demo's run"

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "seqmamba needs Python 3.11 or newer, and '$(PYTHON)' is not: $$($(PYTHON) --version 2>&1 | head -n 1)" >&2; \
	  echo "Name a newer one, for example: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 2; }
	@echo "==> Making $(VENV) and installing the pinned versions, once (minutes, most of them torch's download)"
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "Python could not make an environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 2; }
	@$(PIP) --editable '.[dev]'
	@touch $@
	@echo "==> Installed"

$(BENCH_STAMP): $(STAMP)
	@echo "==> Installing the peers that benchmarks measure beside ours"
	@$(PIP) --editable '.[bench]'
	@touch $@

demo: $(STAMP)
	@$(BIN)/python -m genomamba.demo

test: $(STAMP)
	$(PYTEST)

test-slow: $(STAMP)
	$(PYTEST) -m slow --timeout 1200 -k '$(PROOFS)'

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/vulture
	$(BIN)/deptry genomamba tsmamba kernels data_prep training configs

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(BENCH_STAMP)
	$(BIN)/python -m benchmarks

wheel: $(STAMP)
	$(BIN)/python -m build

clean:
	rm -rf $(VENV) dist build runs/demo
