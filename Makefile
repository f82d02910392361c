# Two commands set everything up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2

.PHONY: demo test check lint types docs alarms bench clean

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

# In two parts: the audits of mutants and variants, the comparisons with authorities and with the reference, the proofs and the
# pages take most of the time, and tracing them would cover nothing new of reference/, which is held to 100 %.
UNTRACED := tests/test_kill_matrix.py tests/test_alarms.py tests/authorities tests/docs tests/impl tests/properties/proofs
test: $(VENV)/test-ready
	$(BIN)/python -m pytest -n $(JOBS) --cov --cov-report=term:skip-covered $(addprefix --ignore ,$(UNTRACED))
	$(BIN)/coverage report --include='reference/*' --fail-under=100 --skip-covered
	$(BIN)/python -m pytest -n $(JOBS) $(UNTRACED)

check: lint types test

lint: $(VENV)/test-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/test-ready
	$(BIN)/mypy

# Regenerates all generated pages, the kill matrix (minutes) and what the authorities say (minutes); tests compare them.
docs: $(VENV)/test-ready
	$(BIN)/python docs/generate.py

# Correct variants and real implementations over many seeds; resumable, results in docs/alarms.json.
alarms: $(VENV)/test-ready
	$(BIN)/python benchmarks/alarms.py

# Where the time of a quick audit goes: import, subject, oracle, engine.
bench: $(VENV)/test-ready
	$(BIN)/python benchmarks/quick_audit.py

clean:
	rm -rf $(VENV) build dist attnspec-report .attnspec .coverage*
