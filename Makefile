# `make demo` sets up and runs the main job on a real model; `make test` sets up and runs every test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One core builds one translation unit; tests run one worker per core.
JOBS ?= $(shell nproc 2>/dev/null || echo 2)

.DEFAULT_GOAL := help
.PHONY: help setup system build demo test test-slow check fix bench docs clean

help: ## List these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

# The stamp is rebuilt when what it depends on changes, so a second `make` reuses what is there.
$(VENV)/.runtime: pyproject.toml CMakeLists.txt $(wildcard native/*.cpp native/*.hpp native/*.inc)
	@echo "==> creating $(VENV) and building the kernels"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check "scikit-build-core>=1.1" "nanobind>=3.1,<4" pathspec cmake ninja
	$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	@echo "==> installing test tools (torch: the CPU build where the package index offers one)"
	@$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --editable ".[dev]"
	@touch $@

setup: $(VENV)/.dev ## Create .venv with everything for development

# What some tests drive besides Python packages; without them those tests are skipped with the reason.
SYSTEM := chromium docker-registry

system: ## Install Chromium and a container registry for the tests (Debian, as root)
	@missing=""; for name in $(SYSTEM); do command -v $$name >/dev/null || missing="$$missing $$name"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "==> installing$$missing"; apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$missing >/dev/null || echo "==> could not install$$missing"; \
	else echo "==> without$$missing: the tests that need them are skipped"; fi

build: ## Rebuild the native kernels in place
	$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $(VENV)/.runtime $(VENV)/.dev

demo: $(VENV)/.runtime ## Set up and run the main job on a real model
	$(BIN)/terazi pull smollm2:135m
	$(BIN)/terazi optimize smollm2:135m --device raspberry-pi-5 --use-case chat --output demo --force

test: system $(VENV)/.dev check ## Set up and run every test but the slow ones
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m "not slow" $(ARGS)

test-slow: system $(VENV)/.dev ## Run the slow tests as well
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

check: $(VENV)/.dev ## Lint, format check, types and layers
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/basedpyright --warnings
	$(BIN)/lint-imports

fix: $(VENV)/.dev ## Format and repair what can be repaired
	$(BIN)/ruff check --fix src tests benchmarks
	$(BIN)/ruff format src tests benchmarks

bench: $(VENV)/.dev ## Print the benchmark tables
	$(BIN)/python benchmarks/quantize.py

clean: ## Remove what was built
	rm -rf $(VENV) build dist
