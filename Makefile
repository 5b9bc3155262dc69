.PHONY: setup demo test test-all check bench
PYTHON ?= python3
BIN := .venv/bin
# A model directory or a torchvision architecture with cached weights: `make demo MODEL=...`
MODEL ?=

.venv/.done: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt -e '.[all,test]'
	touch $@

setup: .venv/.done

# Brings the service up, recognises sample photos, and serves until Ctrl-C (ends by itself without a terminal).
demo: setup
	$(BIN)/irs demo $(if $(MODEL),--model $(MODEL))

test: setup
	$(BIN)/pytest

test-all: setup
	$(BIN)/pytest -m '' --timeout 900

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	$(BIN)/irs bench $(if $(MODEL),--model $(MODEL))
