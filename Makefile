# Every target sets up what it needs, in a virtual environment in the checkout.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
KERNELS := $(shell find csrc -type f)
HARNESS := $(shell find tests -name '*.[ch]pp' -o -name '*.cu' -o -name '*.h')
BUILD_INPUTS := pyproject.toml setup.py CMakeLists.txt $(KERNELS)

.PHONY: help demo test lint package bench clean

help:
	@echo "make demo     is a generator of handwritten digits equally good for both groups? (a minute)"
	@echo "make test     all tests"
	@echo "make bench    speed against the peers, one table (installs them; about ten minutes)"
	@echo "make lint     ruff, clang-format, mypy --strict, import contract"
	@echo "make package  sdist and wheel, contents checked, installed and imported in an empty folder"

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# Editable, so that Python changes need no new install; a change to the C++ sources builds again.
$(VENV)/.demo: $(BUILD_INPUTS) | $(VENV)/bin/python
	$(BIN)/pip install --quiet --editable '.[figures]'
	@touch $@

$(VENV)/.test: $(BUILD_INPUTS) | $(VENV)/bin/python
	$(BIN)/pip install --quiet 'torch==2.13.0' --editable '.[test,language,images,loops]'
	@touch $@ $(VENV)/.demo

# The CUDA kernels are there already, from .test; and so below.
$(VENV)/.lint: $(VENV)/.test
	EGTMETRICS_CUDA=0 $(BIN)/pip install --quiet 'torch==2.13.0' --editable '.[test,language,images,loops,lint]'
	@touch $@

$(VENV)/.bench: $(VENV)/.test
	EGTMETRICS_CUDA=0 $(BIN)/pip install --quiet 'torch==2.13.0' --editable '.[bench]'
	$(BIN)/pip install --quiet --no-deps top-pr==0.2.1 torch-fidelity==0.4.0
	@touch $@

demo: $(VENV)/.demo
	$(BIN)/python examples/digits.py

test: $(VENV)/.test
	# One worker a core, so no threads inside one: shared out, small products take many times as long.
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(KERNELS) $(HARNESS)
	$(BIN)/mypy egtmetrics training examples
	$(BIN)/lint-imports

package: $(VENV)/.lint
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	EGTMETRICS_CUDA=0 $(BIN)/python -m build --wheel --outdir dist/cpu .
	$(BIN)/python .ci/check_dist.py dist

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks.run --out benchmarks/results

clean:
	rm -rf build dist *.egg-info egtmetrics/ops/*.so demo-output
