# Two commands do everything on a fresh machine: make quickstart, make test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORE := $(VENV)/.core
DEV := $(VENV)/.dev

.PHONY: quickstart test test-slow lint bench clean

$(CORE): setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	@touch $(CORE)

$(DEV): $(CORE)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $(DEV)

quickstart: $(CORE)
	$(BIN)/python -m pertjax.main --config=configs/default.py \
	  --workdir=runs/quickstart

test: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n 2

test-slow: $(DEV)
	$(BIN)/python -m pytest -m slow

lint: $(DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(DEV)
	$(BIN)/python -m experiments.bench train

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache
