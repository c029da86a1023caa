# `make demo` and `make test` are the whole set-up. The first installs into .venv what the demo needs, the second all else.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
DEMO_READY := $(VENV)/demo-ready
READY := $(VENV)/ready
# uv where it is there, pip where not (`make demo UV=` is without uv).
UV ?= $(shell command -v uv)
INSTALL = $(call install_into,$(VENV))
install_into = $(if $(UV),$(UV) pip install --quiet --python $(1)/bin/python,$(1)/bin/python -m pip install --quiet --disable-pip-version-check)
# vLLM's build for CPUs, for `make test-vllm` alone.
VLLM := .venv-vllm
# Two processes, each with whole files; with three on two cores, limits that are watched act late. For one test and a
# debugger: .venv/bin/python -m pytest PATH::TEST -x --pdb
SIDE_BY_SIDE := -n 2 --dist loadfile

.PHONY: demo test test-slow test-nightly test-vllm soak vllm lint bench bench-check clean lock

demo: $(DEMO_READY)
	$(BIN)/ratchet demo $(ARGS)

test: $(READY)
	$(BIN)/python -m pytest --doctest-modules clients/python streams daemon learners evaluation --ignore-glob '*/template/*'
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) --timeout 300 $(ARGS)

test-slow: $(READY)
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) --timeout 1800 -m 'slow and not nightly' $(ARGS)

test-nightly: $(READY)
	$(BIN)/python -m pytest -m nightly $(ARGS)

test-vllm: $(READY) $(VLLM)/ready
	$(BIN)/python -m pytest -m vllm $(ARGS)

# Everything at once under faults, MINUTES long; `docs/durability.md` says what it does.
MINUTES ?= 60
SOAK ?= .ratchet/soak-$(shell date +%Y%m%dT%H%M%S)
soak: $(READY)
	$(BIN)/python -m tests.soak --minutes $(MINUTES) --out $(SOAK) $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# All of them with all that they measure, or the ratios alone, beside those of benchmarks/baselines.json.
bench: $(READY)
	$(BIN)/python -m benchmarks.check --figures $(ARGS)

bench-check: $(READY)
	$(BIN)/python -m benchmarks.check $(ARGS)

# An installation that was interrupted has no `ready` file and is begun again. Torch comes with what it needs on this
# machine, which differs between its builds; all else is in the lock files, and some of it must come without what it asks
# for (see requirements.lock).
$(DEMO_READY): requirements-demo.lock pyproject.toml clients/python/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
		|| { echo "Ratchet is set up with Python 3.11: name it, as in make demo PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(INSTALL) --constraint requirements-demo.lock torch==2.13.0
	$(INSTALL) --no-deps --requirement requirements-demo.lock
	$(INSTALL) --no-deps --no-build-isolation --editable clients/python --editable .
	touch $(DEMO_READY)

$(READY): $(DEMO_READY) requirements.lock
	$(INSTALL) --no-deps --requirement requirements.lock
	touch $(READY)

vllm: $(VLLM)/ready

$(VLLM)/ready: requirements-vllm.lock tests/vllm/patch_cpu_lora.py
	$(PYTHON) -m venv --clear $(VLLM)
	$(call install_into,$(VLLM)) --constraint requirements-vllm.lock torch==2.13.0
	$(call install_into,$(VLLM)) --no-deps --requirement requirements-vllm.lock
	$(VLLM)/bin/python tests/vllm/patch_cpu_lora.py
	touch $(VLLM)/ready

# What is installed now becomes the lock files; run it after upgrading something in .venv on purpose.
lock:
	{ sed -n '/^#/p' requirements.lock; $(BIN)/python -m pip freeze --all --exclude-editable --exclude pip \
		| sed 's/^\(torch==[0-9.]*\)+.*/\1/'; } > requirements.lock.new
	mv requirements.lock.new requirements.lock
	$(BIN)/python -m ops.partial_locks

clean:
	rm -rf $(VENV) $(VLLM) .ratchet build dist *.egg-info clients/python/build clients/python/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
