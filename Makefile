# Needs Python 3.11 or newer, git and make. Everything is installed into .venv, as the locks name it: nothing is resolved,
# so no later release of any package can change what is installed.
#   make VENV=.venv-3.13 PYTHON=python3.13 demo     with another Python, beside the first
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PYTHON ?=
PYTHONS := python3 python3.14 python3.13 python3.12 python3.11
# Budgets in lines: what was reached (docs/design.md, "Size"), so that more is a decision. The aim is 10000 and 700.
PRODUCT_LINES := 16550
LUA_LINES := 900
SANDBOX_LINES := 1350
CONSOLE_LINES := 1500
.DEFAULT_GOAL := help
.PHONY: help setup tools run demo test unit check coverage lines bench bench-all chaos chaos-short failover sweeps proofs fuzz dist lock clean

# There from before a virtual environment is made until all of a lock is in it.
UNFINISHED := $(VENV)/.unfinished
ifneq ($(wildcard $(UNFINISHED)),)
$(info an earlier set-up was interrupted: $(VENV) is made anew)
$(shell rm -rf $(VENV))
endif

help:
	@echo 'make run    everything on this machine with a stand-in Rhythm, and events of all kinds; Ctrl-C stops it'
	@echo 'make demo   the same, in a temporary folder, stopped at the end; exits 0 when every event ended as it should'
	@echo 'make test   all tests        make check  what CI runs'
	@echo 'make bench  the figures, in about thirteen minutes (ONLY="backlog idle": rows by name); make bench-all  with a million events'
	@echo 'make coverage  all tests, and which lines and branches none of them enters'
	@echo 'make chaos  processes are killed, Redis and Rhythm fail, every promise is checked (SEED EVENTS SECONDS PROCS)'
	@echo 'make failover  Sentinel fails over, ten times in each of five ways, under load (TIMES WAY)'
	@echo 'make sweeps a worker dies at each step of each order of a history, Redis at each script of a batch: about half an hour'
	@echo 'make proofs power cuts, bad days of Redis, bad clients, the contract, in full: about half an hour'
	@echo 'make fuzz   bodies made from all samples through real processes (BODIES=1000000)'
	@echo 'make dist   the wheel, in dist/, made of what is in the checkout; nothing is fetched'
	@echo 'make lock   renew the locks  make clean  forget everything that was built, .data included'

setup: $(VENV)/.project
tools: $(VENV)/.project $(VENV)/.tools

# $(call install,LOCK): exactly what it names, one line a package.
define install
@echo 'installing the $(shell grep -c '==' $(1)) packages of $(1): half a minute or so'
@touch $(UNFINISHED)
@{ $(PIP) install --no-deps --require-hashes --progress-bar off -r $(1) && rm $(UNFINISHED); } | \
  awk '/^Collecting/ { print "  " $$2 } /^Installing/ { print "unpacking them" } { fflush() }'
@test ! -e $(UNFINISHED)
endef

$(VENV)/.set-up: requirements.lock
	@set -e; for candidate in $(or $(PYTHON),$(PYTHONS)); do \
	  if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$candidate; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo 'examrelay needs Python 3.11 or newer, and none of these is one: $(or $(PYTHON),$(PYTHONS)).' >&2; \
	  echo 'Install one, or say where it is: make PYTHON=/path/to/python3' >&2; exit 1; \
	fi; \
	echo "making $(VENV) with $$($$found --version)"; \
	rm -rf $(VENV); mkdir $(VENV); touch $(UNFINISHED); \
	$$found -m venv $(VENV) || { echo "$$found has no venv: install it (Debian: python3-venv)." >&2; rm -rf $(VENV); exit 1; }
	$(call install,requirements.lock)
	@touch $@

$(VENV)/.tools: requirements-dev.lock $(VENV)/.set-up
	$(call install,requirements-dev.lock)
	@touch $@

# Other pools and queues to measure against.
$(VENV)/.bench: requirements-bench.lock $(VENV)/.tools $(VENV)/.project
	$(call install,requirements-bench.lock)
	@touch $@

# The checkout itself, and the command `examrelay`.
$(VENV)/.project: pyproject.toml $(VENV)/.set-up
	@$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@touch $@

run: setup
	@$(BIN)/python -m sandbox.demo --stay --data "$${EXAMRELAY_DATA:-.data}"

demo: setup
	@$(BIN)/python -m sandbox.demo

# Side by side, each side with a Valkey of its own: first what one process does, then what several do, file by file in
# the order of their names. They wait more than they work, so three run on two cores. The tests that measure
# time (marker `alone`) have the machine for themselves.
TOGETHER := -n 3 tests/unit tests/integration
BESIDE := -n 3 --dist loadfile --no-loadscope-reorder -m 'not alone' tests/acceptance
ALONE := -m alone tests/acceptance

test: tools
	$(BIN)/python -m pytest $(TOGETHER)
	$(BIN)/python -m pytest $(BESIDE)
	$(BIN)/python -m pytest $(ALONE)

unit: tools
	@$(BIN)/python -m pytest -n 2 tests/unit

check: tools
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(MAKE) --no-print-directory test lines

# The lines and branches that no test enters, all processes counted. Tracing doubles the tests' CPU time, and what
# measures time measures the tracing too: so this is no part of check.
coverage: tools
	$(BIN)/python -m pytest --cov --cov-report= $(TOGETHER)
	$(BIN)/python -m pytest --cov --cov-append --cov-report=term:skip-covered $(BESIDE)

# Fails over a budget. The console has its own when it exists.
lines:
	@count() { find "$$@" -type f -not -path 'worker/console/*' | xargs cat | wc -l | tr -d ' '; }; \
	over=0; \
	budget() { \
	  printf '%-32s %5d of %5d lines\n' "$$1" $$2 $$3; \
	  if [ $$2 -gt $$3 ]; then echo "$$1: over budget by $$(($$2 - $$3)) lines" >&2; over=1; fi; \
	}; \
	for package in schemas worker tasks; do printf '%-32s %5d\n' "  $$package" $$(count $$package -name '*.py'); done; \
	budget 'schemas, worker, tasks (Python)' $$(count schemas worker tasks -name '*.py') $(PRODUCT_LINES); \
	budget 'worker/ledger/lua (Lua)' $$(count worker/ledger/lua -name '*.lua') $(LUA_LINES); \
	budget 'sandbox (Python)' $$(count sandbox -name '*.py') $(SANDBOX_LINES); \
	if [ -d worker/console ]; then \
	  budget 'worker/console (Python)' $$(find worker/console -name '*.py' | xargs cat | wc -l | tr -d ' ') $(CONSOLE_LINES); \
	fi; \
	exit $$over

# make bench ONLY="backlog idle": rows by name; bench/README.md has them all.
bench: $(VENV)/.bench
	@$(BIN)/python -m bench $(ONLY)

bench-all: $(VENV)/.bench
	@$(BIN)/python -m bench --size long $(ONLY)

# make chaos SEED=7: one run; without SEED a new one is drawn. chaos/README.md says what happens in it.
EVENTS := 400
SECONDS := 12
PROCS := 2
chaos: tools
	@$(BIN)/python -m chaos $(addprefix --seed ,$(SEED)) --events $(EVENTS) --seconds $(SECONDS) --procs $(PROCS)

# A seed that is always the same, and a new one.
chaos-short: tools
	@$(BIN)/python -m chaos --seed 1 --new 1 --events 250 --seconds 10 --jobs 2

# Sentinel fails over ten times in each way, under load: about forty minutes. WAY=kill plays one way.
TIMES := 10
failover: tools
	@$(BIN)/python -m chaos.failover --times $(TIMES) $(addprefix --way ,$(WAY))

# What `make test` plays a sample of, in full: tests/README.md, "The two sweeps".
SWEEPS := tests/integration/test_redis_killed.py tests/integration/test_order_of_results.py
sweeps: tools
	@EXAMRELAY_FULL=1 $(BIN)/python -m pytest -n 2 --timeout 14400 --show-capture=no $(SWEEPS)

# The archive, and the wheel that is built from it. `--clear`: what an earlier build left there goes.
dist: tools
	@$(BIN)/uv build --quiet --offline --no-build-isolation --python $(BIN)/python --clear --out-dir dist
	@ls dist

# Likewise: tests/README.md, "The proofs". Some need strace, or may mount a small disk; they skip without.
PROOFS := $(addprefix tests/integration/test_,power_cuts.py bad_clients.py contract.py receiver_fuzz.py)
proofs: tools
	@EXAMRELAY_FULL=1 $(BIN)/python -m pytest --timeout 3600 --show-capture=no $(PROOFS) tests/acceptance/test_redis_bad_days.py

BODIES := 20000
fuzz: tools
	@$(BIN)/python -m chaos.fuzz --bodies $(BODIES)

LOCK := $(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-strip-extras \
  --no-emit-index-url --no-emit-find-links --no-annotate --no-header --quiet

# What is locked stays as it is: `make lock UPGRADE=--upgrade` takes newer releases.
lock: tools
	$(LOCK) $(UPGRADE) --group run -o requirements.lock
	$(LOCK) $(UPGRADE) --group dev --constraints requirements.lock -o requirements-dev.lock
	$(LOCK) $(UPGRADE) --group bench --constraints requirements-dev.lock -o requirements-bench.lock

clean:
	rm -rf $(VENV) .venv-* .data build dist *.egg-info .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache \
	  .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
