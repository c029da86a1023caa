# `make demo` and `make test` are the whole set-up. Everything is installed into .venv from requirements.lock.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
# vLLM's build for CPUs, for `make test-vllm` alone.
VLLM := .venv-vllm
# Two processes, each with whole files; with three on two cores, limits that are watched act late. For one test and a
# debugger: .venv/bin/python -m pytest PATH::TEST -x --pdb
SIDE_BY_SIDE := -n 2 --dist loadfile

.PHONY: demo test test-slow test-nightly test-vllm vllm lint bench clean lock

demo: $(READY)
	$(BIN)/ratchet demo $(ARGS)

test: $(READY)
	$(BIN)/python -m pytest --doctest-modules streams daemon learners evaluation --ignore-glob '*/template/*'
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(ARGS)

test-slow: $(READY)
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m 'slow and not nightly' $(ARGS)

test-nightly: $(READY)
	$(BIN)/python -m pytest -m nightly $(ARGS)

test-vllm: $(READY) $(VLLM)/ready
	$(BIN)/python -m pytest -m vllm $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(READY)
	$(BIN)/python benchmarks/ingest.py $(ARGS)
	$(BIN)/python benchmarks/growth.py $(ARGS)
	$(BIN)/python benchmarks/branching.py $(ARGS)
	$(BIN)/python -m benchmarks.command_line $(ARGS)
	$(BIN)/python -m benchmarks.rollback $(ARGS)
	$(BIN)/python -m benchmarks.redaction $(ARGS)
	$(BIN)/python -m benchmarks.canary $(ARGS)
	$(BIN)/python -m benchmarks.gateway $(ARGS)
	$(BIN)/python -m benchmarks.gate_power $(ARGS)
	$(BIN)/python -m benchmarks.evaluation $(ARGS)
	$(BIN)/python -m benchmarks.training --model "$$($(BIN)/python -c 'from pathlib import Path; from learners.base_model import resolve_base; from learners.settings import EMBEDDED; print(resolve_base(EMBEDDED, Path(".ratchet")))')" $(ARGS)
	$(BIN)/python benchmarks/inference.py --model "$$($(BIN)/python -c 'from pathlib import Path; from learners.base_model import resolve_base; from learners.settings import EMBEDDED; print(resolve_base(EMBEDDED, Path(".ratchet")))')" $(ARGS)

# An installation that was interrupted has no `ready` file and is begun again. Torch comes with what it needs on this
# machine, which differs between its builds; all else is in the lock file, and some of it must come without what it asks
# for (see there).
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
		|| { echo "Ratchet is set up with Python 3.11: name it, as in make demo PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $(READY)

vllm: $(VLLM)/ready

$(VLLM)/ready: requirements-vllm.lock tests/vllm/patch_cpu_lora.py
	$(PYTHON) -m venv --clear $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check --constraint requirements-vllm.lock torch==2.13.0
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement requirements-vllm.lock
	$(VLLM)/bin/python tests/vllm/patch_cpu_lora.py
	touch $(VLLM)/ready

# What is installed now becomes the lock files; run it after upgrading something in .venv on purpose.
lock:
	{ sed -n '/^#/p' requirements.lock; $(BIN)/python -m pip freeze --all --exclude-editable --exclude pip \
		| sed 's/^\(torch==[0-9.]*\)+.*/\1/'; } > requirements.lock.new
	mv requirements.lock.new requirements.lock
	$(BIN)/python -m ops.slim_lock

clean:
	rm -rf $(VENV) $(VLLM) .ratchet build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
