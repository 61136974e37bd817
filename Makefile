# Two commands do everything on a bare machine with Python 3.11+ and make:
#   make demo    the whole pipeline on a synthetic catalogue, ending with a table
#   make test    linters, type checker, import contracts, docs, tests
# and more are for who changes the code (tests/README.md):
#   make check     after each edit: make test without the tests that spawn ranks, start Ray, need a GPU or take long
#   make slow      the slowest tests; CI runs them after make test
#   make coverage  make test, and what share of each package it runs; fails below 90 %
#   make mutants   makes small faults in each package, one at a time, and lists those that no test notices (slow)
#   make faults    twenty small trainings that are killed at random moments, and the slow tests (an hour)
#   make docs      the website of the docs and the API reference, in site/
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
# torch, FBGEMM and TorchRec are released as a trio (pyproject.toml pins them). The CPU build of FBGEMM and
# the CUDA build share a folder, so exactly one may be installed: by what the machine has.
ACCELERATOR ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1 && echo cuda || echo cpu)
# Tests of one process run side by side; a worker that has none left takes over tests of the others. There is one worker
# more than cores, because tests wait for the disk.
ONE_PROCESS := not ranks and not ray and not gpu and not slow
WORKERS := $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) + 1)))
# Compiled modules are kept beside their sources: without them every rank, worker and command of a test compiles anew.
export PYTHONDONTWRITEBYTECODE :=
# Pages that people write; docs/bad-input.md is written by a program.
PROSE := $(filter-out docs/bad-input.md,$(wildcard *.md docs/*.md tests/*.md tests/*/*.md))
# make test COVERAGE=1 records which test ran which line, in .coverage. Each process that a test starts is measured too, and
# loads a plugin of tests/, wherever it starts: hence the path.
PYTEST := $(if $(COVERAGE),PYTHONPATH=$(CURDIR) )$(BIN)/python -m pytest
MEASURED := $(if $(COVERAGE),--cov --cov-append --cov-context=test --cov-report=)
STAMP := $(VENV)/installed-$(ACCELERATOR)

.PHONY: demo check test slow coverage mutants faults docs lint install clean

demo: install
	$(BIN)/python jobs/demo.py --output demo

# The linters run beside the tests. What they say is shown after them; either's failure is a failure.
define side_by_side
	@$(MAKE) --no-print-directory lint > $(VENV)/lint.txt 2>&1 & linters=$$!; \
	$(PYTEST) --numprocesses $(WORKERS) --dist worksteal -m "$(1)" $(MEASURED); tested=$$?; \
	wait $$linters; linted=$$?; cat $(VENV)/lint.txt; \
	test $$tested -eq 0 && test $$linted -eq 0
endef

check: install
	$(call side_by_side,$(ONE_PROCESS) and not long)

# Ranks and Ray use several cores themselves, so their tests run one after another.
test: install docs
	$(if $(COVERAGE),$(BIN)/python -m coverage erase)
	$(call side_by_side,$(ONE_PROCESS))
	$(PYTEST) -m "(ranks or ray or gpu) and not slow" $(MEASURED)
	$(if $(COVERAGE),$(BIN)/python -m tests.coverage_by_package)

coverage:
	$(MAKE) test COVERAGE=1

slow: install
	$(BIN)/python -m pytest -m slow

mutants: install
	test -f .coverage || $(MAKE) coverage
	$(BIN)/python -m tests.mutants

# Twenty trainings whose workers, nodes and drivers are killed: docs/reliability.md
faults: slow
	$(BIN)/python benchmarks/faults.py

# Notices of the website's packages about their own future are not errors of these docs.
docs: install
	NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --quiet

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mdformat --check $(PROSE)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: no Python found; install Python 3.11 or newer"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is older than 3.11; run make PYTHON=/path/to/python3.11"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(ACCELERATOR),dev]'
# torchrec asks for fbgemm-gpu whatever the machine; pip would lay the CUDA build over the CPU one.
	$(BIN)/python -m pip install --quiet --no-deps torchrec==1.8.0
	rm -f $(VENV)/installed-*
	touch $@

clean:
	rm -rf $(VENV) demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.*
