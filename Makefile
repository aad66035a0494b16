# Everything a developer does here. `make help` lists it.
#
#   make PYTHON=python3.12 test       use that Python (the first 3.11+ on PATH otherwise)
#   make VENV=.venv-3.12 test         keep a second environment beside the first
#   make test ARGS="-k tokens -x"     pass arguments on (test, run)
#
# An environment is made once and again when a lock file changes: the stamp
# files below remember it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV ?= .venv
PYTHON ?=
ARGS ?=

PY := $(VENV)/bin/python
# An index may answer slowly, or not each time.
PIP := $(PY) -m pip -qq --disable-pip-version-check --no-input --timeout 60 --retries 8
# Bytecode is left to the first import: most modules of most packages are never used.
INSTALL := $(PIP) install --require-hashes --no-deps --no-compile

WORK := build/output
WEB := appliance/web/vendor
SOURCES := $(shell find appliance -name '*.py' -o -path 'appliance/web/*' -type f 2>/dev/null)

# Which Python made the environment: naming another one makes it again, naming none keeps it.
MADE := $(if $(PYTHON),$(VENV)/.made-$(subst /,_,$(PYTHON)),$(firstword $(wildcard $(VENV)/.made*) $(VENV)/.made))

.PHONY: help
help: ## list these targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | expand -t 16

# Environments

$(MADE):
	@python=$$(build/find_python.sh "$(PYTHON)")
	version=$$("$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
	echo "Setting up $(VENV) with Python $$version"
	kept=; [ ! -e $(VENV)/lib ] || [ -e "$(VENV)/lib/python$$version" ] || kept=--clear
	"$$python" -m venv $$kept $(VENV)
	rm -f $(VENV)/.made* $(VENV)/.run $(VENV)/.dev
	touch $@

$(VENV)/.run: $(MADE) requirements/run.txt requirements/install.txt pyproject.toml
	@$(INSTALL) -r requirements/run.txt -r requirements/install.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.run requirements/dev.txt
	@$(INSTALL) -r requirements/dev.txt
	touch $@

# Run

.PHONY: run
run: $(VENV)/.run models/.fetched $(WEB)/.made ## set up and start a demo: a tenant, its token, a curl to paste
	@build/debian_packages.sh bwrap=bubblewrap socat=socat || true
	exec $(VENV)/bin/openclawmu demo $(ARGS)

.PHONY: models
models: models/.fetched ## fetch the embedded models' weights, checked by hash

models/.fetched: build/fetch_models.py | $(MADE)
	@$(PY) build/fetch_models.py $(@D)
	touch $@

.PHONY: web
web: $(WEB)/.made ## fetch the browser code of others (xterm.js) from npm, checked by hash

# Without npm there is no stamp, and the next make tries again: all but the terminal's page works.
$(WEB)/.made: build/web_assets.py build/web/package.json build/web/package-lock.json | $(MADE)
	@build/debian_packages.sh npm=npm || true
	$(PY) build/web_assets.py $(@D)

# Check

.PHONY: check
check: lint types test ## lint, types and test: what has to pass before a change is sent

.PHONY: lint
lint: $(VENV)/.dev ## style (ruff) and the layers' arrows (import-linter)
	@$(PY) -m ruff check --quiet .
	$(PY) -m ruff format --quiet --check .
	$(VENV)/bin/lint-imports

.PHONY: types
types: $(VENV)/.dev ## mypy --strict
	@$(PY) -m mypy

.PHONY: test
test: $(VENV)/.dev models/.fetched $(WEB)/.made ## set up and run every test; what could not be tested is listed last
	@build/debian_packages.sh jq=jq curl=curl bwrap=bubblewrap socat=socat objcopy=binutils \
		chromium-headless-shell=chromium-headless-shell || true
	$(PY) -m pytest -rs $(ARGS)

.PHONY: conformance
conformance: $(VENV)/.dev ## test with OpenClaw's own clients, fetched from npm, and a headless Chromium
	@build/debian_packages.sh npm=npm chromium-headless-shell=chromium-headless-shell \
		bwrap=bubblewrap socat=socat || true
	clients=$$($(PY) build/node_clients.py)
	OPENCLAWMU_CLIENTS="$$clients" $(PATIENT) $(PY) -m pytest -rs tests/conformance $(ARGS)

# A test of these runs a program of somebody else's, which may take its time.
PATIENT := OPENCLAWMU_TEST_PATIENCE=900

.PHONY: test-clients
test-clients: $(VENV)/.dev ## test with the official SDKs and what is built on them, from PyPI and npm
	@build/debian_packages.sh npm=npm || true
	pythons=$$($(PY) build/python_clients.py clients litellm)
	node=$$($(PY) build/node_clients.py tests/conformance/npm/node-24.21.0 tests/clients/npm/api-clients)
	OPENCLAWMU_CLIENT_PYTHONS="$${pythons//$$'\n'/:}" OPENCLAWMU_CLIENT_NODE="$$node" \
		$(PATIENT) $(PY) -m pytest -rs tests/clients $(ARGS)

# The official suite is in no registry: OPENRESPONSES_DIR names a checkout of its repository.
.PHONY: compliance
compliance: $(VENV)/.dev ## test with compliance suites of others (OPENRESPONSES_DIR=checkout for the official one)
	@build/debian_packages.sh npm=npm || true
	node=$$($(PY) build/node_clients.py tests/conformance/npm/node-24.21.0 tests/clients/npm/compliance)
	OPENCLAWMU_CLIENT_NODE="$$node" OPENRESPONSES_DIR="$${OPENRESPONSES_DIR:-}" \
		$(PATIENT) $(PY) -m pytest -rs tests/compliance $(ARGS)

.PHONY: fuzz-api
fuzz-api: $(VENV)/.dev ## ask every route of /openapi.json what nobody would (Schemathesis)
	@pythons=$$($(PY) build/python_clients.py clients)
	OPENCLAWMU_CLIENT_PYTHONS="$$pythons" $(PATIENT) $(PY) -m pytest -rs tests/fuzz $(ARGS)

.PHONY: test-podman
test-podman: $(VENV)/.dev ## test the Podman sandboxes, with an image built by mmdebstrap (root)
	@build/debian_packages.sh podman=podman runc=runc catatonit=catatonit mmdebstrap=mmdebstrap
	image=localhost/openclawmu-base:test
	storage=$$(build/sandbox_image.sh $(WORK)/containers $$image)
	CONTAINERS_STORAGE_CONF="$$storage" OPENCLAWMU_SANDBOX_IMAGE=$$image \
		$(PY) -m pytest -rs tests/sandboxes/test_contract_podman.py $(ARGS)

.PHONY: test-cgroup-v2
test-cgroup-v2: $(VENV)/.dev ## test delegated control groups, in a machine that QEMU boots (root)
	@build/debian_packages.sh qemu-system-x86_64=qemu-system-x86 mmdebstrap=mmdebstrap
	build/cgroup_v2_vm.sh $(WORK)/vm $(PY)

.PHONY: fmt
fmt: $(VENV)/.dev ## format and sort imports
	@$(PY) -m ruff format --quiet .
	$(PY) -m ruff check --quiet --fix .

.PHONY: bench
bench: $(VENV)/.dev models/.fetched ## measure against a bare server and write bench-results/
	@build/debian_packages.sh wrk=wrk nginx=nginx-light || true
	$(PY) -m tests.bench $(ARGS)

# Build

.PHONY: binary
binary: dist/openclawmu ## freeze one executable, weights included, to dist/openclawmu

# An environment of its own: what only development needs must not be found and packed.
$(WORK)/venv/.installed: $(MADE) requirements/run.txt requirements/binary.txt
	@rm -rf $(@D)
	$(PY) -m venv --without-pip $(@D)
	$(PIP) --python $(@D)/bin/python install --require-hashes --no-deps --no-compile \
		-r requirements/run.txt -r requirements/binary.txt
	touch $@

dist/openclawmu: build/binary.py build/runtime_hook.py $(WORK)/venv/.installed models/.fetched $(WEB)/.made $(SOURCES)
	@build/debian_packages.sh objcopy=binutils || true
	$(WORK)/venv/bin/python build/binary.py --models models --work $(WORK) --output $@

.PHONY: docs
docs: $(VENV)/.run ## write docs/methods.md from the table of methods
	@$(PY) build/methods_page.py

.PHONY: lock
lock: $(VENV)/.dev ## write the lock files again, with the newest releases allowed
	@$(INSTALL) -r requirements/lock.txt
	PYTHON=$(PY) build/lock.sh

.PHONY: clean
clean: ## remove what was set up, built and fetched here
	@rm -rf $(VENV) dist $(WORK) $(WEB) models bench-results
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One shell per recipe, so that a failure anywhere stops it.
.ONESHELL:
