.PHONY: setup demo test test-all check bench
PYTHON ?= python3
BIN := .venv/bin
# A model directory or a torchvision architecture with cached weights: `make demo MODEL=...`
MODEL ?=
PHOTOS ?=

.venv/.done: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt -e '.[all,test]'
	touch $@

setup: .venv/.done

# Brings the service up, recognises sample photos, and serves until Ctrl-C (ends by itself without a terminal).
demo: setup
	@test -n "$(MODEL)" || { echo "make demo needs a model: make demo MODEL=DIRECTORY, or a torchvision name such as MODEL=resnet18." >&2; exit 2; }
	$(BIN)/irs up --model "$(MODEL)" -- $(BIN)/python -m irs.cli.demo

test: setup
	$(BIN)/pytest

test-all: setup
	$(BIN)/pytest -m '' --timeout 900

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# PHOTOS: a folder of JPEGs. Without MODEL: resnet18 with random weights, as quick as the trained one.
bench: setup
	@test -n "$(PHOTOS)" || { echo "make bench needs photos: make bench PHOTOS=FOLDER." >&2; exit 2; }
	$(BIN)/irs bench "$(PHOTOS)" $(if $(MODEL),--model "$(MODEL)")
