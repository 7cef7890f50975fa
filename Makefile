# Each target is what CI runs. `make demo` and `make test` need only Python 3.11+ and make.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.installed
export PYTHONDEVMODE ?= 1
# Its checks of memory are for authors of extension modules, and cost a tenth of all.
export PYTHONMALLOC ?= pymalloc
# Without byte code each process that a test starts compiles the package, and each worker all tests.
export PYTHONDONTWRITEBYTECODE =
# Each worker has a PostgreSQL of its own. With `auto` a few tests have none: see tests/plugin.py.
WORKERS ?= auto

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all lint format types docs bench wheel check clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-10s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "pgobserve needs Python 3.11 or newer; set PYTHON=python3.x")'
	$(PYTHON) -m venv $(VENV)
	@# Without the development mode: pip's own warnings are none of ours.
	PYTHONDEVMODE= $(BIN)/python -m pip install -qq --disable-pip-version-check -e '.[demo,dev]'
	@touch $(STAMP)

setup: $(STAMP) ## Create .venv and install everything

demo: $(STAMP) ## Serve the demo page on http://127.0.0.1:8000
	@PYTHONDEVMODE= $(BIN)/python -m pgobserve demo

test: $(STAMP) ## Run the unit, integration and acceptance tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

test-all: $(STAMP) ## Run the slow ones, and those of other Pythons and of PostgreSQL 14 to 17, too
	$(BIN)/python -m pytest -m slow $(ARGS)
	PYTHON=$(PYTHON) tests/matrix.sh

lint: $(STAMP) ## Check style, format and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

format: $(STAMP) ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP) ## Check the types, strictly
	$(BIN)/mypy

docs: $(STAMP) ## Build the documentation, warnings are errors
	PYTHONDEVMODE= $(BIN)/sphinx-build -nW --keep-going -q -b html docs docs/_build/html

bench: $(STAMP) ## Measure; timings are never test assertions
	@PYTHONDEVMODE= $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	@$(BIN)/python -X dev=no -m benchmarks $(ARGS)

wheel: $(STAMP) ## Build the sdist and the wheel
	$(BIN)/python -m hatchling build -t sdist -t wheel

check: lint types test docs wheel ## All that must hold before a change lands

clean: ## Remove what the targets made
	rm -rf $(VENV) .venv-* build dist docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
