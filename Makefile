# `make help` lists what can be done here. Every target sets up by itself what it needs: Python 3.11 or newer and
# make are all that a machine must have. Works with the GNU make 3.81 that macOS ships.

.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check --no-input
# What one environment holds is told by stamps inside it: the pinned run-time packages, the project itself, the
# packages for tests and checks. A second run finds them newer than their sources and does nothing.
RUNTIME := $(VENV)/.runtime
PROJECT := $(VENV)/.project
DEVELOP := $(VENV)/.develop

# make run PYTHON=/opt/python/bin/python3   builds the environment with an interpreter of your choice
PYTHON ?=
# make test ARGS="-k billing -x"            hands options on to pytest
ARGS ?=
# make test WORKERS=4                       runs more test processes side by side
WORKERS ?= 2

# ------------------------------------------------------------------------------------------------- using it

.PHONY: help
help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: run
run: $(PROJECT) ## Start everything on http://localhost:8000 (PORT=... to change), no other service needed
	@exec $(VENV)/bin/orchestrator serve --migrate --seed

.PHONY: demo
demo: $(PROJECT) ## Play the whole story, from registration to single sign-on, against the running server
	@exec $(VENV)/bin/orchestrator demo

.PHONY: setup
setup: $(PROJECT) $(DEVELOP) ## Build the environment for tests and checks without running anything

# ------------------------------------------------------------------------------------------------- proving it

.PHONY: test
test: setup ## Run all tests in both deployments, then the coverage gate (ARGS=... for pytest)
	@rm -f .coverage .coverage-*
	@$(MAKE) test-embedded MEASURE=yes
	@$(MAKE) test-cluster MEASURE=yes
	@$(MAKE) coverage

# Each deployment measures into a file of its own, because a test run erases what it finds under its name. What the
# cluster adds to the measure is the way between instances; to measure all of it twice would cost minutes.
measured_cluster := realtime
pytest = $(if $(MEASURE),COVERAGE_FILE=$(CURDIR)/.coverage-$(1)) $(PY) -m pytest --deployment=$(1) \
	$(if $(MEASURE),--cov$(addprefix =,$(measured_$(1))) --cov-report=) $(ARGS)

# CI plays what failed once more, alone and on a machine that has nothing else to do: thousands of tests with real
# servers and clients on a crowded machine, and one that was too late must not hold up everybody's work. Whoever fails
# alone fails; whoever does not is named, for it is a test to mend.
once_more = || { code=$$?; [ "$(CI)" = true ] && [ $$code -eq 1 ] || exit $$code; \
	echo "=== Once more, alone: what failed in the $(1) deployment"; \
	$(call pytest,$(1)) --last-failed --last-failed-no-failures=none $(if $(MEASURE),--cov-append) -rA --no-header \
	&& echo "=== UNSTEADY: the tests above failed among others and passed alone. Mend them."; }

.PHONY: thorough
thorough: setup ## Try ten thousand sequences of payments on the journal, the commission and the reports; for nights
	@$(PY) -m pytest --hypothesis-profile=thorough --numprocesses=$(WORKERS) tests/services/billing/test_journal.py \
		tests/services/billing/test_proration.py tests/services/merchants/test_commission.py \
		tests/services/reports/test_money.py tests/services/reports/test_recurring.py $(ARGS)

.PHONY: test-embedded
test-embedded: setup ## Run the tests with everything in one process on our own PostgreSQL
	@$(call pytest,embedded) --numprocesses=$(WORKERS) $(call once_more,embedded)

.PHONY: test-cluster
test-cluster: setup ## Run the tests with several processes on PostgreSQL, Redis and RabbitMQ
	@$(call pytest,cluster) --numprocesses=$(WORKERS) $(call once_more,cluster)

.PHONY: coverage
coverage: setup ## Report what the last `make test` covered; fail below 95 % of branches on a deciding floor
	@$(PY) -m coverage combine --quiet --keep .coverage-embedded .coverage-cluster
	@$(PY) -m coverage report
	@$(PY) -m coverage json --quiet -o .coverage.json
	@$(PY) .ci/coverage_gate.py .coverage.json

# ------------------------------------------------------------------------------------------------- checking it

.PHONY: check
check: lint types imports compose-check ## Run every check that needs no test run

.PHONY: lint
lint: setup ## Check style and likely mistakes (ruff)
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check

.PHONY: types
types: setup ## Check types (mypy, strict)
	@$(PY) -m mypy

.PHONY: imports
imports: setup ## Check that imports run downwards through the floors (import-linter)
	@$(VENV)/bin/lint-imports --no-logo

.PHONY: compose-check
compose-check: ## Check docker-compose.yml, where Docker Compose is installed
	@if docker compose version >/dev/null 2>&1; then \
		values=$$(mktemp) && sed -n 's/^\([A-Z_]*\)=$$/\1=check/p' .env.example > "$$values" \
			&& docker compose --env-file "$$values" config --quiet && echo "docker-compose.yml is valid."; \
		result=$$?; rm -f "$$values"; exit $$result; \
	else \
		echo "Docker Compose is not installed here: docker-compose.yml was not checked."; \
	fi

.PHONY: format
format: setup ## Rewrite the code in the project's style, mending what can be mended
	@$(PY) -m ruff check --fix
	@$(PY) -m ruff format

# ------------------------------------------------------------------------------------------------- keeping it

.PHONY: lock
lock: setup ## Pin the newest versions that requirements/*.in allow, with hashes, for every platform
	@UV_CUSTOM_COMPILE_COMMAND="make lock" $(PY) -m uv pip compile --quiet --upgrade --universal \
		--python-version 3.11 --generate-hashes --no-emit-index-url --system-certs \
		requirements/base.in --output-file requirements/base.txt
	@UV_CUSTOM_COMPILE_COMMAND="make lock" $(PY) -m uv pip compile --quiet --upgrade --universal \
		--python-version 3.11 --generate-hashes --no-emit-index-url --system-certs --constraint requirements/base.txt \
		requirements/dev.in --output-file requirements/dev.txt
	@UV_CUSTOM_COMPILE_COMMAND="make lock" $(PY) -m uv pip compile --quiet --upgrade --universal \
		--python-version 3.11 --generate-hashes --no-emit-index-url --system-certs --constraint requirements/dev.txt \
		requirements/paypal-sdk.in --output-file requirements/paypal-sdk.txt

.PHONY: clean
clean: ## Remove the environment and every cache; the data in ./var stays
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis \
		.coverage .coverage-* .coverage.*
	find . -name __pycache__ -type d -not -path './var/*' -prune -exec rm -rf {} +

# ------------------------------------------------------------------------------------------------- setting it up

# An environment cannot be moved: one that came along with a copied folder would run the code of the old one.
ifneq "$(shell cat $(VENV)/.made-in 2>/dev/null)" "$(CURDIR)"
.PHONY: $(PY)
endif

# 3.12 and 3.11 come first because the wheel that brings Redis to the tests exists for these.
$(PY):
	@for candidate in $(PYTHON) python3.12 python3.11 python3.13 python3.14 python3 python; do \
		"$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
		echo "Creating $(VENV) with $$("$$candidate" --version)"; \
		if "$$candidate" -m venv --clear $(VENV); then \
			printf '%s' "$(CURDIR)" > $(VENV)/.made-in; \
			exit 0; \
		fi; \
		rm -rf $(VENV); \
		echo "$$candidate cannot create virtual environments. On Debian and Ubuntu: apt install python3-venv" >&2; \
		exit 1; \
	done; \
	echo "Python 3.11 or newer is needed, and none was found on the PATH." >&2; \
	echo "Install one (https://www.python.org/downloads/), or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; \
	exit 1

$(RUNTIME): requirements/base.txt $(PY)
	@echo "Installing what the server runs on (once, about half a minute)"
	@$(PIP) --require-hashes -r requirements/base.txt
	@touch $@

# The build backend is already in the environment, so this step needs no network.
$(PROJECT): pyproject.toml setup.cfg clients/python/pyproject.toml $(RUNTIME)
	@$(PIP) --no-index --no-deps --no-build-isolation --editable . --editable clients/python
	@touch $@

# PayPal's SDK brings a package named `tests`, which would hide ours, so that it gets a folder of its own.
$(DEVELOP): requirements/dev.txt requirements/paypal-sdk.txt $(RUNTIME)
	@echo "Installing what tests and checks need (once, about a minute)"
	@$(PIP) --require-hashes -r requirements/dev.txt
	@$(PIP) --upgrade --target $(VENV)/paypal-sdk --require-hashes -r requirements/paypal-sdk.txt
	@touch $@
