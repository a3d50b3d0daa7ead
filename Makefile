# make demo | test | check | bench | sanitize | torture | gpu; the first call makes .venv, later ones rebuild what changed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(wildcard csrc/*) setup.py pyproject.toml

# The kernels for GPUs are built where there is one; elsewhere the tests compile what they need.
export NONDET_PROBE_CUDA ?= $(if $(wildcard /dev/nvidia0),auto,0)

.PHONY: demo test check lint types format bench sanitize torture gpu build clean

build: $(VENV)/built

$(VENV)/installed: requirements-dev.txt requirements-nvcc.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "nondet_probe needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@command -v nvcc > /dev/null || \
	  $(BIN)/pip install --quiet --disable-pip-version-check -r requirements-nvcc.txt || \
	  echo "no nvcc: the tests of what it compiles will be skipped" >&2
	@touch $@

$(VENV)/built: $(VENV)/installed $(SOURCES)
	@$(BIN)/pip install --verbose --disable-pip-version-check --no-build-isolation --no-deps -e . \
	  > $(VENV)/build.log 2>&1 || { cat $(VENV)/build.log; exit 1; }
	@grep -o 'nondet_probe\._C: .*' $(VENV)/build.log
	@touch $@

# Exit code 1 means that nondeterminism was found: the right answer for the second workload.
demo: build
	@$(BIN)/nondet-probe checkup digits-cnn --threads 2
	@$(BIN)/nondet-probe checkup snippets-hashed --threads 2; code=$$?; \
	  test $$code -eq 1 || { echo "snippets-hashed gave exit code $$code, not 1" >&2; exit 1; }

test: build
	$(BIN)/python -m pytest

check: lint types test

lint: build
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: build
	$(BIN)/mypy

format: build
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Quiet machine, some minutes; rows go to benchmarks/results/*.csv.
bench: build
	$(BIN)/python -m pytest benchmarks --benchmark-enable

# The kernels' tests on sanitized builds; torch's own threads and pool are not ours to judge.
sanitize: build
	PYTHON=$(BIN)/python CXX=$(CXX) tests/sanitizers/run.sh

# The grid of which `make test` takes a covering sample; the result is a line of tests/ops/torture.csv.
MINUTES ?= 30
torture: build
	$(BIN)/python tests/ops/torture.py --minutes $(MINUTES)

# With the Python and packages of a machine that has a GPU, and no network: benchmarks/gpu.py.
gpu:
	$(PYTHON) benchmarks/gpu.py

clean:
	rm -rf build $(VENV) nondet_probe/_C*.so *.egg-info
