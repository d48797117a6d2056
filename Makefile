# Everything a developer does. `make` alone lists it.

# The first that is new enough; the recipe complains if none is.
PYTHON ?= $(firstword $(shell for name in python3 python3.13 python3.12 python3.11; do \
	$$name -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$name; done) python3)
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
VENV ?= .venv
BIN := $(VENV)/bin
TEMPLATES = find jobs jobsite -path '*/templates/*.html' -print0 | xargs -0r $(BIN)/djade --target-version 5.2
# The lock files are complete and name every hash: there is nothing to resolve.
PIP = $(BIN)/python -m pip -qq --disable-pip-version-check install --no-deps --no-compile
# Compiled where they are first imported. Without that, each of the thousand processes that
# the tests start would spend a second on compiling Django.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help run test check format matrix faults mutants bench fairness scaling chaos recovery tour lock clean

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/run.stamp ## The site and a worker at http://127.0.0.1:8000/ (PORT=8001 for another port)
	@$(BIN)/python -m jobsite.dev

ifdef T
test: $(VENV)/dev.stamp
	@$(BIN)/python -m devtools.suite $(T)
else
test: check ## All checks, then all tests (T=tests/test_x.py::test_y for some, STRICT=1, INSTALL=1)
	@$(SUITE)
endif

# On SQLite and PostgreSQL side by side, with a real RabbitMQ and a browser.
SUITE = $(BIN)/python -m devtools.services run -- $(BIN)/python -m devtools.suite

faults: $(VENV)/dev.stamp ## Every fault, and every crash point in every way (half an hour)
	@$(SUITE) --faults

check: $(VENV)/dev.stamp ## Lint, format, types, import contracts, migrations, messages
	$(BIN)/ruff check --quiet
	$(BIN)/ruff format --check --quiet
	@$(TEMPLATES) --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	DATABASE_URL=sqlite://:memory: $(BIN)/python manage.py makemigrations --check --dry-run
	@$(BIN)/python -m devtools.messages --check

format: $(VENV)/dev.stamp ## Put code, templates and messages in their form
	$(BIN)/ruff check --fix --quiet
	$(BIN)/ruff format --quiet
	@$(TEMPLATES)
	@$(BIN)/python -m devtools.messages

matrix: ## The tests on every Python that this machine has, 3.11 to 3.13
	@for version in 3.11 3.12 3.13; do \
		python=; \
		for found in python$$version $$HOME/.pyenv/versions/$$version.*/bin/python; do \
			if $$found -c '' 2>/dev/null; then python=$$found; break; fi; \
		done; \
		if [ -z "$$python" ]; then echo "python$$version is not on this machine: left out"; continue; fi; \
		$(MAKE) --no-print-directory matrix-one PYTHON=$$python VENV=.venv-$$version || exit 1; \
	done

.PHONY: matrix-one
matrix-one: $(VENV)/dev.stamp
	@$(BIN)/python -c 'import sys, django; print(f"Python {sys.version.split()[0]}, Django {django.__version__}")'
	@SQLITE_ONLY=1 $(SUITE)

mutants: $(VENV)/dev.stamp ## Broken builds: each must be caught by its tests (MUTANTS="name …" for some)
	@$(BIN)/python -m devtools.mutants $(MUTANTS)

bench: $(VENV)/dev.stamp $(if $(PEERS),.venv-peers/peers.stamp) ## Measure: saved to started, jobs a second, the price of a save; PEERS=1: beside others
ifdef PEERS
	@$(BIN)/python -m devtools.services run -- $(BIN)/python -m benchmarks.compare --save
else
	@$(BIN)/python -m devtools.services run -- sh -c "$(BIN)/python manage.py migrate -v0 && $(BIN)/python -m benchmarks.latency && \
		$(BIN)/python -m benchmarks.drain && $(BIN)/python -m benchmarks.enqueue && $(BIN)/python -m benchmarks.saving && \
		$(BIN)/python -m benchmarks.growth && $(BIN)/python -m benchmarks.wear"
endif

fairness: $(VENV)/dev.stamp ## Measure: idle slots, jobs behind others, a worker's start and its idle memory
	@$(BIN)/python -m devtools.services run -- sh -c "$(BIN)/python manage.py migrate -v0 && $(BIN)/python -m benchmarks.fairness && \
		$(BIN)/python -m benchmarks.startup && $(BIN)/python -m benchmarks.memory --jobs 0"

recovery: $(VENV)/dev.stamp ## Measure: how soon a job runs again, and whether a worker grows (half an hour)
	@$(BIN)/python -m devtools.services run -- sh -c "$(BIN)/python -m benchmarks.recovery && $(BIN)/python -m benchmarks.memory"

scaling: $(VENV)/dev.stamp ## Measure: what 1, 2 and 4 workers do and cost (DATABASE_URL of PostgreSQL); simulate up to 64
	@$(BIN)/python -m devtools.services run -- sh -c "$(BIN)/python -m benchmarks.scaling && $(BIN)/python -m benchmarks.simulation"

tour: $(VENV)/dev.stamp ## Follow one job through the code: files, functions and turns between files
	@$(BIN)/python -m devtools.services run -- $(BIN)/python -m devtools.tour --verbose

chaos: $(VENV)/dev.stamp ## Jobs under random faults: SEED=n, LONG=1 for an hour, CLUSTER=1 for three brokers
	@$(BIN)/python -m devtools.chaos $(if $(SEED),--seed $(SEED)) $(if $(CLUSTER),--cluster) \
		$(if $(LONG),--jobs 100000 --faults 1000 --minutes 60)

lock: ## Compile the requirements files from the ranges in pyproject.toml
	@command -v uv >/dev/null || test -x .cache/uv/bin/uv || \
		{ $(PYTHON) -m venv .cache/uv && .cache/uv/bin/python -m pip --quiet install uv; }
	@PATH="$$PATH:$(CURDIR)/.cache/uv/bin"; \
	compile="uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header"; \
	site="pyproject.toml --extra site"; \
	$$compile $$site -o requirements.txt && \
	$$compile $$site --group dev -c requirements.txt -o requirements-dev.txt && \
	$$compile --group peers -c requirements-dev.txt -o benchmarks/peers/requirements.txt

clean: ## Remove what these commands made, but not your data
	rm -rf .venv .venv-* .cache .*_cache .hypothesis .coverage staticfiles test_*.sqlite3*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment that is there is used, whoever made it; a broken one is made anew.
$(VENV)/python.stamp:
	@$(BIN)/python -c '$(NEW_ENOUGH)' 2>/dev/null || { \
		$(PYTHON) -c '$(NEW_ENOUGH)' 2>/dev/null || \
			{ echo "Jobsite needs Python 3.11 or newer, and $(PYTHON) is not: make PYTHON=/path/to/python3 …"; exit 1; }; \
		$(PYTHON) -m venv --clear $(VENV); }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null
	@touch $@

$(VENV)/run.stamp: requirements.txt | $(VENV)/python.stamp
	@echo "installing packages into $(VENV) …"
	@$(PIP) -r requirements.txt
	@touch $@

# What is measured beside us never meets what we run on.
.venv-peers/peers.stamp: benchmarks/peers/requirements.txt
	@$(MAKE) --no-print-directory VENV=.venv-peers .venv-peers/python.stamp
	@echo "installing other job managers into .venv-peers …"
	@.venv-peers/bin/python -m pip -qq --disable-pip-version-check install --no-deps --no-compile -r $<
	@touch $@

# The development packages include the others.
$(VENV)/dev.stamp: requirements.txt requirements-dev.txt | $(VENV)/python.stamp
	@echo "installing development packages into $(VENV) …"
	@$(PIP) -r requirements-dev.txt
	@touch $@ $(VENV)/run.stamp
