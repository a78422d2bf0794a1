# `make help` lists the targets. Everything runs in .venv, which is made once and reused until its inputs change.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
DEMO   ?= demo_out

# Large tensors otherwise go back to the kernel after each step: the same training step then takes about twice as long.
export MALLOC_MMAP_THRESHOLD_ := 4294967296
export MALLOC_TRIM_THRESHOLD_ := 4294967296
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help venv demo test promises lint train-reference clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(STAMP) ## make .venv and install the package with the tested versions

$(STAMP): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.11 ...")'
	@echo "Installing into $(VENV) (one to two minutes on the first run)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(if $(CI),-q,--progress-bar off) -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP) ## anonymize the synthetic cohort with the reference weights, into demo_out/
	$(BIN)/python scripts/demo.py --output_dir $(DEMO)

test: $(STAMP) ## run all tests
	$(BIN)/python -m pytest --durations=10

promises: $(STAMP) ## the promises of the release plane in full size (hours), and their table in SECURITY.md
	rm -f promises.jsonl
	GMIA_PROMISES=full GMIA_PROMISES_LINES=$(CURDIR)/promises.jsonl $(BIN)/python -m pytest tests/promises
	$(BIN)/python scripts/write_promises.py promises.jsonl SECURITY.md

lint: $(STAMP) ## ruff on everything, mypy on the strict rooms
	$(BIN)/ruff check .
	$(BIN)/mypy

train-reference: $(STAMP) ## train the reference weights again (hours; needs GMIA_CXR_DIR)
	PATH="$(CURDIR)/$(BIN):$$PATH" bash scripts/train_reference.sh

clean: ## remove what make, the tests and the demo wrote (.venv and your output/ stay)
	rm -rf $(DEMO) build dist .pytest_cache .ruff_cache .mypy_cache *.egg-info
	find gmia_monai scripts tests -name __pycache__ -type d -prune -exec rm -rf {} +
