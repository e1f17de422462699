# Needs Python 3.11 or newer, git and make. Everything is installed into .venv, from requirements.lock.
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
PYTHON ?=
PYTHONS := python3 python3.14 python3.13 python3.12 python3.11
.DEFAULT_GOAL := help
.PHONY: help setup run demo test check lines bench lock clean

help:
	@echo 'make run    everything on this machine with a stand-in Rhythm, and events of all kinds; Ctrl-C stops it'
	@echo 'make demo   the same, in a temporary folder, stopped at the end; exits 0 when every event ended as it should'
	@echo 'make test   all tests        make check  what CI runs      make bench  the figures'
	@echo 'make lock   renew the lock   make clean  forget everything that was built, .data included'

setup: $(STAMP)

# Stamped: runs again only when the lock or the project changes.
$(STAMP): requirements.lock pyproject.toml
	@set -e; if [ ! -x $(BIN)/python ]; then \
	  for candidate in $(or $(PYTHON),$(PYTHONS)); do \
	    if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$candidate; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo 'examrelay needs Python 3.11 or newer, and none of these is one: $(or $(PYTHON),$(PYTHONS)).' >&2; \
	    echo 'Install one, or say where it is: make PYTHON=/path/to/python3' >&2; exit 1; \
	  fi; \
	  $$found -m venv $(VENV) || { echo "$$found has no venv: install it (Debian: python3-venv)." >&2; rm -rf $(VENV); exit 1; }; \
	fi
	@echo 'installing what requirements.lock names ...'
	@$(PIP) install --no-deps --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

run: $(STAMP)
	@$(BIN)/python -m sandbox.demo --stay --data "$${EXAMRELAY_DATA:-.data}"

demo: $(STAMP)
	@$(BIN)/python -m sandbox.demo

test: $(STAMP)
	@$(BIN)/python -m pytest

check: $(STAMP)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered
	@$(MAKE) --no-print-directory lines

# Budgets: docs/design.md. Over one is a warning: promises are not cut to fit.
lines:
	@count() { find "$$@" -type f | xargs cat | wc -l | tr -d ' '; }; \
	told() { printf '%-32s %5d of %5d lines%s\n' "$$1" $$2 $$3 "$$([ $$2 -gt $$3 ] && echo '  WARNING: over budget')"; }; \
	for package in schemas worker tasks; do printf '%-32s %5d\n' "  $$package" $$(count $$package -name '*.py'); done; \
	told 'schemas, worker, tasks (Python)' $$(count schemas worker tasks -name '*.py') 4000; \
	told 'worker/ledger/lua (Lua)' $$(count worker/ledger/lua -name '*.lua') 500; \
	told 'sandbox (Python)' $$(count sandbox -name '*.py') 800

bench: $(STAMP)
	@$(BIN)/python -m bench

lock: $(STAMP)
	$(BIN)/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --no-annotate --no-header -o requirements.lock

clean:
	rm -rf $(VENV) .data build *.egg-info .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache \
	  .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
