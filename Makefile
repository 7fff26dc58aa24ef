# make demo: the main job on synthetic data, some minutes on two CPU cores. make test: every check.
# Both make the environment they need in .venv; PYTHON chooses the interpreter (3.11 to 3.13).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# What Python compiles is kept, whatever is said elsewhere: some hundred processes would compile it again.
export PYTHONDONTWRITEBYTECODE :=

PYTEST := -m pytest -n auto --dist worksteal

.PHONY: demo test unit lint types coverage test-portable test-oldest docs install clean

demo: $(VENV)/.compiled
	$(BIN)/icsr demo

# The type checker takes a minute of one core: beside it libraries are compiled, and the tests begin.
test:
	$(MAKE) --no-print-directory --jobs 2 types unit

unit: lint $(VENV)/.compiled
	$(BIN)/python $(PYTEST)

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: $(VENV)/.installed
	$(BIN)/mypy

# What of the code the tests of this process run: it slows them by half.
coverage: $(VENV)/.compiled
	$(BIN)/python $(PYTEST) --cov --cov-report=term:skip-covered

# What computes, as older processors would.
PORTABLE := tests/recipes tests/distances tests/clusterers tests/labelling tests/refiners tests/metrics tests/models tests/memories tests/test_features.py
test-portable: $(VENV)/.compiled
	ONEDNN_MAX_CPU_ISA=AVX2 $(BIN)/python -m pytest -n auto $(PORTABLE)
	ONEDNN_MAX_CPU_ISA=SSE41 ATEN_CPU_CAPABILITY=default $(BIN)/python -m pytest -n auto $(PORTABLE)
	NUMBA_CPU_NAME=generic $(BIN)/python -m pytest -n auto $(PORTABLE)

# The tests with the oldest releases that pyproject.toml admits and that have a wheel for this Python.
OLDEST ?= .venv-oldest
test-oldest: $(OLDEST)/.installed
	$(OLDEST)/bin/python $(PYTEST)

# The pages as a site in site/; a dead link is an error.
docs: $(VENV)/.installed
	$(BIN)/python -m mkdocs build --strict

install: $(VENV)/.compiled

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --no-compile --editable '.[dev]'
	touch $@

# The label engine by numba, and what it imports: tests beside each other would all do it.
$(VENV)/.compiled: $(VENV)/.installed
	$(BIN)/python benchmarks/labels.py --n 300 --d 16 --engine-only > /dev/null
	touch $@

# uv, as pip has no way to ask for the oldest.
$(OLDEST)/.installed: pyproject.toml
	$(PYTHON) -m venv --clear $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet uv
	$(OLDEST)/bin/uv pip install --quiet --python $(OLDEST)/bin/python --resolution lowest-direct --no-build --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) $(OLDEST)
