# make run    the demo federation: `make run ARGS="--nodes 4 -c num-rounds=3"` passes arguments to `fedkd run`
# make config writes the run-config keys from the code into pyproject.toml and docs/configuration.md
# make test   the tests: `make unit`, in as many processes as there are cores, then `make e2e`, which starts the real
#             Flower processes; `make unit ARGS="-k codec"` passes arguments to pytest
# make test-slow     docs/deploy.md for real: TLS, keys, killed daemons; a slow network with cuts; wrong clocks
# make test-docker   docker/ for real, in a project and folder of its own: a silo killed, a run stopped and resumed
# make lint   ruff and mypy
# make docs   the site of docs/, into site/; a link to nowhere is an error
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
APPS := client_app.py server_app.py
ARGS ?=

# The demo's model and data come from packages: no run or test asks the Hugging Face Hub.
export HF_HUB_OFFLINE := 1

.DEFAULT_GOAL := run
.PHONY: run config test unit e2e test-slow test-docker lint docs install clean

run: $(STAMP)
	$(BIN)/fedkd run . $(ARGS)

config: $(STAMP)
	$(BIN)/python scripts/document_config.py

test:
	$(MAKE) unit
	$(MAKE) e2e

unit: $(STAMP)
	$(BIN)/python -m pytest -m "not e2e and not slow" --numprocesses auto --dist loadfile $(ARGS)

e2e: $(STAMP)
	$(BIN)/python -m pytest -m "e2e and not slow" $(ARGS)

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow $(ARGS)

test-docker: $(STAMP)
	tests/e2e/docker.sh

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict fedkd_flwr $(APPS)

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt requirements-demo.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --editable '.[dev,docs]' --constraint constraints.txt
	$(BIN)/python -m pip install --quiet --no-deps --requirement requirements-demo.txt
	touch $@

clean:
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis dist site
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
