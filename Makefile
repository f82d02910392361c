# Two commands set everything up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2

.PHONY: demo test check lint types docs alarms bench old-transformers clean

$(BIN)/attnspec: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/test-ready: $(BIN)/attnspec
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# Audits torch's SDPA on each backend, this project's own attention and a broken example; writes attnspec-report/.
demo: $(BIN)/attnspec
	$(BIN)/attnspec demo --report attnspec-report

# In two parts: the reference is held to 100 % by branch, by its own tests alone; tracing the rest would cost minutes and say
# little, as audits run in workers.
test: $(VENV)/test-ready
	$(BIN)/python -m pytest -n $(JOBS) --cov --cov-report=term:skip-covered --cov-fail-under=100 tests/reference
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal --ignore tests/reference

check: lint types test

lint: $(VENV)/test-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/test-ready
	$(BIN)/mypy

# Regenerates all generated pages, the kill matrix (minutes) and what the authorities say (minutes); tests compare them.
docs: $(VENV)/test-ready
	$(BIN)/python docs/generate.py

# Correct variants and real implementations over 50 seeds in quick and 5 in ci (hours; Ctrl-C keeps what is there, and the
# next call goes on); results in docs/alarms.json.
alarms: $(VENV)/test-ready
	$(BIN)/python benchmarks/alarms.py
	$(BIN)/python benchmarks/alarms.py --profile ci --seeds 5

$(VENV)/bench-ready: $(VENV)/test-ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	touch $@

# Where the time of a quick audit goes: import, subject, oracle, engine. Then the models against their peers on two threads
# (minutes; Ctrl-C keeps what is there); writes docs/speed.json and docs/speed.md.
bench: $(VENV)/bench-ready
	$(BIN)/python benchmarks/quick_audit.py
	$(BIN)/python -m benchmarks.models

# Models of older versions of transformers, each version in an environment of its own in .venvs/ (minutes, and a gigabyte
# each); writes the table of docs/audits/old-transformers.md. No part of `make test`.
old-transformers:
	$(PYTHON) benchmarks/old_transformers.py

clean:
	rm -rf $(VENV) .venvs build dist attnspec-report .attnspec .coverage*
