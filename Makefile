# Two commands for everybody: `make demo` and `make test`. Each does all of its own set-up in .venv.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PORT ?= 8000
EXIT ?=
JOBS ?= 4

.PHONY: demo test check fix bench faults fuzz mutants lock clean help

help:            ## what can be made here
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*##/ -/'

$(STAMP): pyproject.toml requirements.lock deploy/make-venv.sh
	@sh deploy/make-venv.sh "$(PYTHON)" "$(VENV)"
	@touch $(STAMP)

demo: $(STAMP)   ## the guided walk on loopback (PORT=9000, EXIT=1 to end after it)
	@$(BIN)/threadbridge demo --port $(PORT) $(if $(EXIT),--exit,)

test: $(STAMP)   ## the whole suite
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

check: $(STAMP)  ## format, lint and types, strictly
	@$(BIN)/ruff format --check src tests
	@$(BIN)/ruff check src tests
	@$(BIN)/mypy

fix: $(STAMP)    ## format, and mend what the linter can
	@$(BIN)/ruff format src tests
	@$(BIN)/ruff check --fix src tests

bench: $(STAMP)  ## figures beside the machine's own limits
	@$(BIN)/python -m tests.benchmarks

faults: $(STAMP) ## the long form of the kill -9 tests, with their figures (FAULTS_KILLS=500 on each database)
	@$(BIN)/python -m pytest -s tests/faults --faults-long

fuzz: $(STAMP)   ## every reader of foreign words, FUZZ_SECONDS=300 each (FUZZ_SEED=… for the same again)
	@FUZZ_SECONDS=$${FUZZ_SECONDS:-300} $(BIN)/python -m pytest tests/fuzz

mutants: $(STAMP) ## would the tests notice? MUTANTS_ONLY=net/guard, MUTANTS_SECONDS=600 (a sample, by MUTANTS_SEED)
	@PYTHONPATH=src $(BIN)/python -m tests.mutation --processes $(JOBS)

lock: $(STAMP)   ## resolve the dependencies anew
	@$(BIN)/python -m pip install -q uv && $(BIN)/uv pip compile -q --universal --all-extras --no-emit-index-url --no-header --python-version 3.11 pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
