# Heed, from a clone: `make run` tries it, `make test` checks it. Everything goes into .venv and var, both ignored by git.

PYTHON ?= python3
# More arguments for pytest: make test PYTEST="-k suppression"; to look into one: PYTEST="-n0 --pdb -k suppression"
PYTEST ?=
# More arguments for the benchmark: make bench BENCH="--short --only A"; what there is: BENCH=--help
BENCH ?=
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install run test lint format bench bench-all clean

install: $(VENV)/.installed

# The daemon in the foreground, in sandbox mode: nothing leaves this machine.
run: install
	@exec $(BIN)/heed run

test: $(VENV)/.developed
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal $(PYTEST)

lint: $(VENV)/.developed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.developed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The table of docs/performance.md, beside Postfix, and all that was measured for it in build/bench.json.
bench: $(VENV)/.developed
	@mkdir -p build
	$(BIN)/python -m tests.bench.bench_throughput --json build/bench.json $(BENCH)

# Every benchmark, one after the other; each says with --help what it can be told.
bench-all: $(VENV)/.developed
	@set -e; for file in tests/bench/bench_*.py; do name=$$(basename $$file .py); \
	  echo "== $$name"; $(BIN)/python -m tests.bench.$$name; done

# var holds the keys without which nothing that is stored can be read: it is not cleaned away.
clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each step leaves its mark only when it is complete, so that one that was cut off is done again.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "Heed needs Python 3.11 or later as $(PYTHON); on Debian: apt-get install python3 (or: make PYTHON=python3.12)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) can't make a virtual environment; on Debian: apt-get install python3-venv"; exit 1; }
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: pyproject.toml $(VENV)/.made
	@echo "Installing Heed into $(VENV); this takes a minute"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.developed: pyproject.toml $(VENV)/.installed
	@echo "Installing what the tests need into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
