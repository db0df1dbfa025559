# `make run` serves, `make test` is what CI runs. `make help` lists the rest.
# Needs python3 >= 3.11, make and git; everything else goes into .venv, at the versions of the lock files. Tests whose
# tools are missing, such as go and node for the clients, say skipped and why.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALLED := $(VENV)/.installed
PYTEST_ARGS ?=
BENCH_ARGS ?=
# Tests run side by side in so many processes.
JOBS ?= 2
CORE_TESTS = tests/replication/core \
	$(addprefix tests/replication/test_,interactions.py membership.py progress.py quorum.py raft.py raft_random.py thesis.py)
# So many failovers of clusters of real processes the nightly run goes through.
FAILOVERS ?= 200
# So many simulated runs, from this seed on, and so many virtual hours each.
SEED ?= 1000
RUNS ?= 1000
HOURS ?= 0.1

export PYTHON

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: install
install: $(INSTALLED) ## Make .venv with the program and all it needs, at pinned versions

$(INSTALLED): requirements.lock requirements-dev.lock pyproject.toml .ci/install_system_packages
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "install: python3 >= 3.11 is needed, and $(PYTHON) is " + sys.version.split()[0])'
	@.ci/install_system_packages
	@$(BIN)/python -c 'import pip' 2>/dev/null || $(PYTHON) -m venv $(VENV)
	$(PIP) install -q --no-deps -r requirements.lock -r requirements-dev.lock
	$(PIP) install -q --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: run
run: install ## Serve on the default ports, with the data in ./data
	exec $(BIN)/redan serve --data-dir ./data

.PHONY: test
test: check core-coverage test-clients image pytest ## All checks and the whole test suite; what CI runs

.PHONY: check
check: lint typecheck proto-check config-check helm-check ## All that needs no running of tests

.PHONY: lint
lint: install ## Ruff: rules and format; hadolint for the Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/hadolint Dockerfile

.PHONY: format
format: install ## Let ruff repair what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: typecheck
typecheck: install ## mypy --strict on code and tests
	$(BIN)/mypy --strict kvservice replication persistence tests helm clients $(wildcard bench)

.PHONY: proto
proto: install ## Generate the protobuf stubs
	PATH="$(CURDIR)/$(BIN):$$PATH" proto/generate.sh
	clients/python/generate.sh
	$(BIN)/python clients/python/unasync.py
	GO="$$(command -v go || echo /usr/local/go/bin/go)" clients/go/generate.sh

.PHONY: proto-check
proto-check: install ## Are the committed stubs what the generator makes?
	PATH="$(CURDIR)/$(BIN):$$PATH" proto/generate.sh --check
	clients/python/generate.sh --check
	$(BIN)/python clients/python/unasync.py --check

.PHONY: config-files
config-files: install ## Generate .env.example, redan.toml and what the chart says of settings
	$(BIN)/redan config example --format env >.env.example
	$(BIN)/redan config example --format toml >redan.toml
	PYTHONPATH=. $(BIN)/python helm/redan/generate.py

.PHONY: config-check
config-check: install ## Are the committed .env.example and redan.toml what the generator makes?
	$(BIN)/redan config example --format env | diff -u .env.example -
	$(BIN)/redan config example --format toml | diff -u redan.toml -

.PHONY: helm-docs
helm-docs: install ## Generate the table of helm/redan/README.md and the schema of its settings
	PYTHONPATH=. $(BIN)/python helm/redan/generate.py

.PHONY: helm-check
helm-check: install ## Are that table and that schema what the generator makes?
	PYTHONPATH=. $(BIN)/python helm/redan/generate.py --check

.PHONY: chart-tools
chart-tools: ## Put helm 3 and 4, checkov and the schemas of Kubernetes into build/chart-tools, at pinned versions
	@.ci/install_chart_tools

.PHONY: test-helm
test-helm: install chart-tools helm-check ## Hold the chart against Helm 3 and 4, Kubernetes 1.29 to 1.37, checkov, promtool
	$(BIN)/python -m pytest -n $(JOBS) tests/helm $(PYTEST_ARGS)

.PHONY: test-manifest
test-manifest: install chart-tools ## The chart's StatefulSet as processes: pods killed, deleted, replaced, under writes of all clients
	@.ci/build_clients
	@rm -f build/manifest.txt
	$(BIN)/python -m pytest -n $(JOBS) tests/manifest $(PYTEST_ARGS)
	@cat build/manifest.txt 2>/dev/null || echo "test-manifest: nothing was measured, because the test was left out"

.PHONY: image
image: install ## Build the image with buildah, where root is, and what reads compose.yaml, into build/image
	@.ci/build_image

.PHONY: test-image
test-image: install chart-tools image ## Run the image with runc as Docker, the chart and compose.yaml start it; needs root
	$(BIN)/python -m pytest -n $(JOBS) tests/image $(PYTEST_ARGS)

.PHONY: pytest
pytest: install chart-tools ## The test suite alone; PYTEST_ARGS="-k name" narrows it
	$(BIN)/python -m pytest -rs -n $(JOBS) $(PYTEST_ARGS)

.PHONY: test-clients
test-clients: install ## The clients in Python, Go and Node, through the death of a leader; skips those whose go or node is missing
	JOBS=$(JOBS) .ci/test_clients $(PYTEST_ARGS)

.PHONY: nightly
nightly: install ## What takes too long for each change; FAILOVERS=200 SEED=1000 RUNS=1000 HOURS=0.1
	$(BIN)/redan simulate --seed $(SEED) --runs $(RUNS) --hours $(HOURS)
	TEST_FAILOVERS=$(FAILOVERS) $(BIN)/python -m pytest -s tests/system/test_failovers.py
	$(BIN)/python -m tests.simulation.planted_bugs

.PHONY: core-coverage
core-coverage: install ## Do the tests of the consensus core alone take every branch of it?
	@mkdir -p build
	$(BIN)/coverage run --branch --source=replication/core --data-file=build/core.coverage -m pytest $(CORE_TESTS)
	$(BIN)/coverage report --data-file=build/core.coverage --show-missing --fail-under=100

.PHONY: bench
bench: install ## Side by side with redis-server, 15 minutes; JSON into bench/results; BENCH_ARGS="--quick"
	$(BIN)/python -m bench $(BENCH_ARGS)

.PHONY: bench-cluster
bench-cluster: install ## Three nodes side by side with three of etcd, 35 minutes, needs Go; BENCH_ARGS="--quick"
	$(BIN)/python -m bench.cluster $(BENCH_ARGS)

.PHONY: bench-decisions
bench-decisions: install ## The measurements behind docs/decisions.md; BENCH_ARGS="--only NAME"
	$(BIN)/python -m bench.decisions $(BENCH_ARGS)

.PHONY: bench-docs
bench-docs: install ## Fill the figures of docs from bench/results
	$(BIN)/python -m bench.render

.PHONY: lock
lock: ## Write the lock files from what is in .venv
	$(BIN)/python .ci/write_locks.py
	if [ -x build/chart-tools/venv/bin/python ]; then build/chart-tools/venv/bin/python .ci/write_locks.py chart; fi

.PHONY: clean
clean: ## Remove the virtual environment and caches; data stays
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find kvservice replication persistence proto tests bench helm clients -name __pycache__ -type d -prune -exec rm -rf {} +
