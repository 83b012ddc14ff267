# Sets up everything it needs in .venv, on a machine with Python 3.11+ and a C compiler.
#   make demo    the whole job on scikit-learn's handwritten digits, a report at the end
#   make test    formatting, lint, types, tests
#   make slow    the tests that take long: parity at every network's own resolution
#   make bench   timings beside the peers
#   make clean   removes what these made
# Another interpreter: make PYTHON=/path/to/python3.12 demo

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: demo test slow bench clean
unexport PYTHONHOME PYTHONPATH

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done)
BIN := .venv/bin

# ---- what `make demo` runs: fill in here ----
DEMO := $(BIN)/python scripts/demo.py

demo: .venv/demo.stamp
	$(DEMO)

test: .venv/test.stamp
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/python -m pytest -m 'not slow' -n 2 --dist loadfile --durations=10

slow: .venv/test.stamp
	$(BIN)/python -m pytest -m slow -n 2 --dist loadfile --durations=10

bench: .venv/bench.stamp
	$(BIN)/python benchmarks/run.py

# One environment; each stamp says that its extra is installed as pyproject.toml and constraints.txt have it now.
.venv/demo.stamp: EXTRA :=
.venv/test.stamp: EXTRA := [test]
.venv/bench.stamp: EXTRA := [bench]
.venv/%.stamp: pyproject.toml constraints.txt $(wildcard src/trifold/kernels/c/*) | .venv/created.stamp
	$(BIN)/python -m pip install --quiet --constraint constraints.txt setuptools
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.$(EXTRA)'
	@touch $@

.venv/created.stamp:
	@[ -n "$(PYTHON)" ] || { echo "error: no Python 3.11 or newer with venv found; install one or run make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	@touch $@

clean:
	rm -rf .venv build dist runs src/*.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests scripts benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
