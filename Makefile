# Everything a user or a developer types. `make` alone prints this help.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
PORT ?=
TORCH_INDEX ?=
FAULT_TABLE ?=
DEMO_FLAGS := $(if $(ONCE),--once) $(if $(PORT),--port $(PORT)) \
	$(if $(TORCH_INDEX),--torch-index $(TORCH_INDEX))
WORKERS := -n 2
SHELL_FILES := $(shell git ls-files '*.sh' .ci/run tests/engine_source/stubs/bin \
	tests/engine_source/stubs/cuda/bin/nvcc)
APART := --ignore tests/fault --ignore tests/kernel --ignore tests/container --ignore tests/helper \
	--ignore tests/accept --ignore tests/gateway --ignore tests/browser --ignore tests/cluster

.PHONY: help
help: ## print this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# ---- use

.PHONY: demo smoke setup
demo: .venv/.runtime ## the appliance over the real vLLM CPU engine (ONCE=1, PORT=9001)
	@$(BIN)/python -m appliance.demo $(DEMO_FLAGS)

setup: .venv/.runtime ## what make demo needs, without starting it
	@$(BIN)/python -m appliance.demo --setup $(DEMO_FLAGS)

smoke: .venv/.runtime ## check the running appliance (URL=http://… KEY=…)
	@APPLIANCE_STATE_DIR=$${APPLIANCE_STATE_DIR:-$(if $(wildcard .demo/state/address),.demo/state)} \
	$(BIN)/appliance smoke $(URL) $(if $(KEY),--key $(KEY))

# ---- develop

.PHONY: check test test-fault test-unit test-long test-search format lock clean
check: .venv/.dev ## ruff, mypy, import-linter, codespell, shellcheck, hadolint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/shellcheck $(SHELL_FILES)
	$(BIN)/hadolint docker/Dockerfile

test: .venv/.dev setup ## unit, component, contract and end-to-end tests on the real engine
	$(BIN)/python -m pytest $(APART) -m "not long and not engine" $(WORKERS)
	CI=true $(BIN)/python -m pytest $(APART) -m "not long and engine"

test-fault: .venv/.dev setup ## break it in every known way, and print what happened
	FAULT_TABLE=$(FAULT_TABLE) CI=true $(BIN)/python -m pytest tests/fault -m "not long"

test-unit: .venv/.dev ## the tests that need no engine
	$(BIN)/python -m pytest $(APART) -m "not long and not engine" $(WORKERS)

test-long: .venv/.dev setup ## what takes long: fresh installs, real faults, ten minutes of fuzz
	CI=true $(BIN)/python -m pytest --ignore tests/kernel --ignore tests/container \
		--ignore tests/accept/kilo --ignore tests/browser --ignore tests/cluster -m long

test-search: .venv/.dev ## the laws of the unit tests, with thousands of new random cases each
	$(BIN)/python -m pytest tests/unit --hypothesis-profile=search --timeout 1800 \
		-m "not long and not engine and hypothesis" $(WORKERS)

format: .venv/.dev ## put the code into its form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: .venv/.dev ## write the lock files anew
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header \
		pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header \
		pyproject.toml --group dev -o requirements-dev.lock
	printf 'llama-benchy==0.4.0\nmatplotlib==3.11.2\n' | $(BIN)/uv pip compile -q --universal \
		--python-version 3.11 --generate-hashes --no-header - -o appliance/bench/serving.lock

clean: ## remove the environments, the demo and all caches
	rm -rf .venv .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# ---- the container path, the helper that makes room in memory, the gateway, benchmarks

include docker/container.mk tests/helper/helper.mk tests/gateway/gateway.mk tests/bench/bench.mk \
	tests/browser/browser.mk tests/cluster/cluster.mk extras/extras.mk

# ---- environments

.venv/bin/python:
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info < (3, 14); \
	sys.exit(not ok and "Python 3.11 to 3.13 is needed, this is " + sys.version.split()[0] \
	+ ": make PYTHON=python3.12 ...")'
	@$(PYTHON) -m venv .venv

.venv/.runtime: .venv/bin/python requirements.lock pyproject.toml
	@echo "installing the appliance into .venv (about half a minute)"
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps -e .
	@touch $@

.venv/.dev: .venv/.runtime requirements-dev.lock
	@echo "installing the development tools into .venv (about a minute)"
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@
