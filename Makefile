# `make up` runs Tidings, `make test` proves it; both do their own set-up, and do it once: the stamps in .venv
# remember what is installed, so a second run needs no network.
SHELL := /bin/sh
MAKEFLAGS += --jobs=2
.DEFAULT_GOAL := help
.PHONY: help setup up test bench chaos faults fuzz lint lock clean

# Give PYTHON=… to choose an interpreter; scripts/prerequisites chooses one otherwise.
PYTHON ?=
export PYTHON
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
ARGS ?=

RUN_READY := $(VENV)/.stamp-run
TEST_READY := $(VENV)/.stamp-test
JARS_READY := broker/libs/.stamp

help: ## this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

setup: $(TEST_READY) $(JARS_READY) ## everything for running and for developing

up: $(RUN_READY) $(JARS_READY) ## run everything on this machine (ARGS="--port 8081")
	@exec $(BIN)/tidings up $(ARGS)

test: setup ## set up everything, then lint, types, import contracts and every test
	@scripts/prerequisites test
	@$(MAKE) --no-print-directory lint
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

lint: $(TEST_READY) ## style, types and the import table
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --config pyproject.toml

bench: setup ## measure latency, start-up and memory (never a test)
	$(BIN)/python -m bench $(ARGS)

chaos: setup ## kills, freezes and outages at full length (CHAOS_SEED, CHAOS_ROUNDS, CHAOS_FLOW_S)
	$(BIN)/python -m tests.chaos $(ARGS)

faults: setup ## a gateway's faults at full length: 1,000 clients, outages of 20 s
	GATEWAY_FAULTS=full $(BIN)/python -m pytest tests/integration/test_gateway_faults.py $(ARGS)

fuzz: setup ## bytes of strangers against all that reads them (ARGS="--seconds 60 frame record")
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(PIP) 'atheris>=3,<4'
	$(BIN)/python -m tests.fuzz $(ARGS)

lock: $(TEST_READY) ## resolve the dependencies anew (UV=path of uv)
	$(UV) pip compile --quiet --upgrade $(LOCK_FLAGS) pyproject.toml -o requirements.lock
	$(UV) pip compile --quiet $(LOCK_FLAGS) --extra dev -c requirements.lock pyproject.toml -o requirements-dev.lock

clean: ## remove what set-up and the tools made (never ./data)
	rm -rf $(VENV) broker/libs broker/target .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

UV ?= uv
LOCK_FLAGS := --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header

$(BIN)/python:
	@scripts/prerequisites run
	@"$$(scripts/prerequisites python)" -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(RUN_READY): requirements.lock pyproject.toml | $(BIN)/python
	$(PIP) --require-hashes -r requirements.lock
	$(PIP) --no-build-isolation --no-deps --no-index --editable .
	@touch $@

$(TEST_READY): requirements-dev.lock $(RUN_READY)
	$(PIP) --require-hashes -r requirements-dev.lock
	@touch $@

# Kafka's jars, and beside them Java's archive of their classes, which halves the broker's start.
$(JARS_READY): broker/pom.xml broker/archive.py | $(RUN_READY)
	@scripts/prerequisites run
	rm -rf broker/libs
	mvn --quiet --batch-mode -Dstyle.color=never --file broker/pom.xml package
	$(BIN)/python -m broker.archive
	@touch $@
