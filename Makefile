# Two commands do everything: `make testbed` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
BIN := .venv/bin
REPORTS := reports
PYTEST := $(BIN)/pytest --junitxml=$(REPORTS)
# What needs no test to have run; `make gate` knows the results.
LINT := ansible-lint bandit duplicates mypy pylint ruff semgrep shellcheck yamllint
# What takes longest comes first, so that nothing long is left over for the end.
LONGEST := tests/e2e/test_testbed.py
LIVE := $(LONGEST) tests/molecule $(filter-out $(LONGEST),$(wildcard tests/e2e/test_*.py)) tests/artifacts tests/sqa
# The servers that tests/pipelines share are started by one worker when those come first, and together.
UNIT := tests/pipelines tests/unit tests/services
COMPILE := $(BIN)/uv pip compile --quiet --upgrade --python-version 3.12 --generate-hashes \
  --no-emit-index-url --no-emit-find-links --no-header

.PHONY: help
help: ## Show the targets and what they do
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: install
install: ## Install what is missing: system packages, Docker Engine, the Python environment
	@scripts/bootstrap.sh

.PHONY: testbed
testbed: install ## Raise the local testbed, run the acceptance suite against it and show the result
	@$(BIN)/deep testbed up

.PHONY: down
down: ## Remove the local testbed and leave the machine as it was
	@$(BIN)/deep testbed down

.PHONY: prepare
prepare: ## Install what the tests need too, and remove earlier reports
	@scripts/bootstrap.sh test
	@rm -rf $(REPORTS)

.PHONY: test
test: prepare ## Run every test: lint, unit, live nodes, molecule, end to end, the quality gate
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory unit
	@$(MAKE) --no-print-directory live
	@$(MAKE) --no-print-directory gate
	@$(BIN)/python tools/test_summary.py $(foreach part,unit alone live machine,$(REPORTS)/$(part).xml)

.PHONY: lint
lint: ## Run the linters, the type checker and the security scanner
	@$(BIN)/ruff format --check .
	@$(BIN)/deep sqa run $(LINT:%=--check %)

.PHONY: gate
gate: ## Hold the repository against the quality standards; after `make unit live`, which leave the evidence
	@$(BIN)/deep sqa run --output $(REPORTS)/sqa

.PHONY: unit
unit: ## Run the unit tests (minutes, no root, no Docker)
	@$(PYTEST)/unit.xml --numprocesses 2 --cov --cov-report=xml:$(REPORTS)/coverage.xml $(UNIT)

.PHONY: live
live: ## Run the tests that need root and Docker: builds, nodes, molecule scenarios, the testbed end to end
	@mkdir -p $(REPORTS)
	@$(BIN)/python -m tests.machine.state $(REPORTS)/machine.json
	@$(PYTEST)/alone.xml --durations 5 tests/nodes
	@$(PYTEST)/live.xml --numprocesses 2 --dist loadfile --no-loadscope-reorder --durations 30 $(LIVE)
	@$(PYTEST)/machine.xml tests/machine

.PHONY: molecule
molecule: ## Run the Molecule scenario of one layer: make molecule LAYER=gpu
	@$(PYTEST)/molecule-$(LAYER).xml "tests/molecule/test_scenarios.py::test_scenario[$(LAYER)]"

.PHONY: end-to-end
end-to-end: ## Run what make live runs beside the Molecule scenarios
	@$(MAKE) --no-print-directory live LIVE="$(filter-out tests/molecule,$(LIVE))"

.PHONY: docs
docs: ## Regenerate the reference pages from their sources
	@$(BIN)/python tools/role_docs.py
	@$(BIN)/python tools/cli_docs.py
	@$(BIN)/python tools/jenkins_stages.py
	@$(BIN)/python tools/openapi.py
	@$(BIN)/python tools/licences.py

.PHONY: format
format: ## Format the Python code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

.PHONY: lock
lock: ## Pin the newest allowed versions of all requirements, with hashes
	@$(COMPILE) --extra benchmark --extra build --extra release --extra test pyproject.toml --output-file requirements/dev.txt
	@$(COMPILE) requirements/uv.in --output-file requirements/uv.txt
	@for tool in sqa/tools/*.in pipelines/jenkins/requirements/*.in; do $(COMPILE) $$tool --output-file $${tool%.in}.txt || exit 1; done
	@$(BIN)/python tools/lock_python.py --upgrade

.PHONY: bench
bench: install ## Measure the figures of docs/performance.md, empty caches included (long)
	@for part in testbed paas modules sqa release benchmark_power benchmark_quick benchmark_ways; do $(BIN)/python -m benchmarks.$$part --write || exit 1; done

.PHONY: clean
clean: ## Remove the Python environment and every report; testbeds and caches stay
	@rm -rf .venv .python $(REPORTS)
