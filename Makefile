.PHONY: setup demo test test-all check docs bench release audit
PYTHON ?= python3
BIN := .venv/bin
# A model directory, an s3:// address or a torchvision architecture: `make demo MODEL=...`; else the demo chooses.
MODEL ?=
PHOTOS ?=

.venv/.done: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt -e '.[all,test,docs]'
	touch $@

setup: .venv/.done

# Brings the service up, recognises sample photos, and serves until Ctrl-C (ends by itself without a terminal).
demo: setup
	$(BIN)/irs up --model "$(or $(MODEL),auto)" -- $(BIN)/python -m irs.cli.demo

# Most tests wait for processes: two at a time take little more than half the time. One file stays in one process.
# Properties are tried on the same examples each time; `make test-all` draws new ones.
test: setup
	$(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder --hypothesis-profile=ci

test-all: setup
	$(BIN)/pytest -m '' --timeout 900

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) docs

# The site of docs/ in build/site; a warning, such as a dead link, ends it. Asks nothing of the network.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

# PHOTOS: a folder of JPEGs. Without MODEL: resnet18 with random weights, as quick as the trained one.
bench: setup
	@test -n "$(PHOTOS)" || { echo "make bench needs photos: make bench PHOTOS=FOLDER." >&2; exit 2; }
	$(BIN)/irs bench service "$(PHOTOS)" $(if $(MODEL),--model "$(MODEL)")

# Wheel and sdist in dist/, the same from the same commit, and what they bring along as a CycloneDX list.
release: setup
	rm -rf build/source dist
	mkdir -p build/source
	git archive HEAD | tar -x -C build/source
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m build --outdir dist build/source
	$(MAKE) build/release/.done
	build/release/tools/bin/cyclonedx-py environment --output-reproducible --pyproject pyproject.toml \
		--output-file dist/irs.cdx.json build/release/irs/bin/python

# Whether a weakness is known of anything that a release brings along; asks PyPI.
audit: build/release/.done
	build/release/tools/bin/pip-audit --strict --vulnerability-service pypi --skip-editable --path "$$(build/release/irs/bin/python -c 'import site; print(site.getsitepackages()[0])')"

# What users install, and beside it the tools that look at it: neither holds the other.
build/release/.done: pyproject.toml constraints.txt
	rm -rf build/release
	$(PYTHON) -m venv build/release/irs
	build/release/irs/bin/pip install -q -c constraints.txt '.[worker,web,scaler,flower]'
	$(PYTHON) -m venv build/release/tools
	build/release/tools/bin/pip install -q 'cyclonedx-bom>=7.5' 'pip-audit>=2.10'
	touch $@
