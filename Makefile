# Everything runs in an environment of the project's own; `make demo` and `make test` set it up.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Flags for pip, e.g. an extra index with builds of torch for your machine.
PIP_FLAGS ?=
DEMO_FOLDER ?= demo-run

.PHONY: help setup demo check format test test-peers test-all bench reproduce reproduce-full reproduce-smoke reproduce-streams constraints wheel clean

help:  ## Show the targets.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(READY)  ## Create the environment and install the package into it.

$(READY): pyproject.toml constraints.txt
	@echo "Setting up $(VENV) (a few minutes the first time: torch is large) ..."
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --progress-bar on --disable-pip-version-check $(PIP_FLAGS) --constraint constraints.txt --group dev --editable .
	@touch $(READY)

demo: $(READY)  ## The whole road on real text that this machine has, ending with a report.
	$(BIN)/python -m rewarm demo --folder $(DEMO_FOLDER)

check: $(READY)  ## Format, lint, types, layers.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(READY)  ## Put the code into its one form.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: $(READY)  ## The fast tests (under 8 minutes on 2 cores).
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-peers: .peers/.ready .peers-stream/.ready  ## Tests against torchao, the transformers Trainer and Avalanche, installed in .peers*.
	PYTHONPATH=.peers $(BIN)/python -m pytest tests/peers
	PYTHONPATH=.peers-stream $(BIN)/python -m pytest tests/peers/test_avalanche.py

.peers/.ready: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) --no-deps --upgrade --target .peers --group peers
	@touch $@

.peers-stream/.ready: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) --no-deps --upgrade --target .peers-stream --group peers-stream
	@touch $@

.peers-tokenize/.ready: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) --no-deps --upgrade --target .peers-tokenize --group peers-tokenize
	@touch $@

.peers-train/.ready: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) --no-deps --upgrade --target .peers-train --group peers-train
	@touch $@

test-all: $(READY)  ## All tests: all kills, the wheel, the lowest versions, the tutorial, the browser.
	$(BIN)/python tools/test_all.py

bench: .peers-tokenize/.ready .peers-train/.ready  ## Run the CPU benchmarks and print the table, what falls short first.
	$(BIN)/python benchmarks/run.py

reproduce: $(READY)  ## The papers' claims in miniature (3 hours on 2 cores by estimate; REWARM_DATA names the corpora).
	$(BIN)/python reproduction/suite.py

reproduce-full: $(READY)  ## The same and the streams, however long it takes.
	$(BIN)/python reproduction/suite.py --unbounded
	$(BIN)/python reproduction/law.py
	$(BIN)/python reproduction/stream_suite.py --unbounded

reproduce-smoke: $(READY)  ## Every experiment and stream in little, in minutes.
	$(BIN)/python reproduction/suite.py --smoke
	$(BIN)/python reproduction/law.py --smoke
	$(BIN)/python reproduction/stream_suite.py --smoke

reproduce-streams: $(READY)  ## The streams of tasks (40 minutes on 2 cores, by estimate).
	$(BIN)/python reproduction/stream_suite.py

constraints: $(READY)  ## Pin what is installed now as what is tested.
	$(BIN)/python tools/constraints.py

wheel: $(READY)  ## Build the wheel into dist/.
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean:  ## Remove what was built, the environment and the demo included.
	rm -rf $(VENV) .peers .peers-stream .peers-tokenize .peers-train dist build $(DEMO_FOLDER) .pytest_cache .mypy_cache .ruff_cache .hypothesis
