# Everything a person needs: `make demo` runs it, `make test` tests it. Needs Python >= 3.11 and make, nothing else.

# TORCH=cpu installs torch without CUDA (smaller); any value of uv's --torch-backend works
TORCH ?=
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
# another interpreter beside: make test VENV=.venv-3.13 PYTHON=python3.13
VENV ?= .venv
RUN := $(VENV)/bin/python -m
DEMO ?=
TESTS ?=

# the root's folders must not be importable a second time, beside recurra.*
export PYTHONSAFEPATH := 1
# the engine has its own threads; a BLAS that starts more of them only takes turns with them
export OPENBLAS_NUM_THREADS ?= 1
export OMP_NUM_THREADS ?= 1

# without compiled modules on disk every process compiles torch's sources again, ten seconds each
unexport PYTHONDONTWRITEBYTECODE

# torch's own builds have other hashes than those that the lock knows
INSTALL := $(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --constraints requirements.lock \
	$(if $(TORCH),--torch-backend=$(TORCH) --no-verify-hashes)

.PHONY: coverage demo docs soak test test-night test-gpu bench-gpu evaluate-gpu check format lock clean
.DEFAULT_GOAL := demo

demo: $(VENV)/.installed
	$(RUN) recurra.cli demo $(DEMO)

# tests run side by side in so many processes; 0 takes this one, for a debugger
WORKERS ?= 2

test: $(VENV)/.installed-dev
	$(RUN) pytest -n $(WORKERS) --dist worksteal $(TESTS)

# hours: the slow tests, and those of kills, seeds and inputs by the hundred
test-night: $(VENV)/.installed-dev
	RECURRA_NIGHT=1 $(RUN) pytest -m "slow or night" --timeout 7200 $(TESTS)

# a service under load and faults for so long; SEED repeats one, RATE is in events a second
MINUTES ?= 120
SEED ?= 1
RATE ?= 300

soak: $(VENV)/.installed-dev
	$(VENV)/bin/python tests/soak/soak.py --minutes $(MINUTES) --seed $(SEED) --rate $(RATE)

# parity on a CUDA device, with the extra gpu; `make test-gpu RUN='python3 -m' GPU_READY=` takes what is installed
GPU_READY ?= $(VENV)/.installed-gpu

test-gpu: $(GPU_READY)
	$(RUN) pytest -m gpu $(TESTS)

# one file of results per command in GPU_OUT; a command that fails (no faiss-gpu, say) does not keep the others back
GPU_OUT ?= gpu-results
BENCH = timeout 570 $(RUN) recurra.cli bench

bench-gpu: $(GPU_READY)
	@mkdir -p $(GPU_OUT)
	-$(BENCH) kernels --part step --json $(GPU_OUT)/step.json
	-$(BENCH) train --device cuda --json $(GPU_OUT)/train.json
	-$(BENCH) query --items 1000000 --device cuda --json $(GPU_OUT)/query.json
	-$(BENCH) kernels --part bfloat16 --tune --json $(GPU_OUT)/scan-bfloat16.json
	-$(BENCH) kernels --part float32 --tune --json $(GPU_OUT)/scan-float32.json

# three seeds of each data set side by side: a single training leaves most of a GPU idle
GPU_DATA ?= data
EVALUATE = timeout 590 $(RUN) recurra.cli evaluate --device cuda --minutes 7.5 --epochs 200 --every 2 --patience 15 --quiet

evaluate-gpu: $(GPU_READY)
	@mkdir -p $(GPU_OUT)
	@for seed in 1 2 3; do \
		$(EVALUATE) $(GPU_DATA)/ml-1m-order --seed $$seed --json $(GPU_OUT)/ml-1m-$$seed.json & \
		$(EVALUATE) $(GPU_DATA)/amazon-beauty --max-len 50 --seed $$seed --json $(GPU_OUT)/beauty-$$seed.json & \
	done; wait

# the pages that are generated from the code, then the site, in build/site
docs: $(VENV)/.installed-dev
	$(VENV)/bin/python tools/reference.py
	NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs build --strict --quiet
	@echo "build/site/index.html"

# lines and branches that the tests run; what numba and Triton compile cannot be counted
coverage: $(VENV)/.installed-dev
	$(RUN) pytest -q --cov --cov-report=term --cov-report=html:build/coverage $(TESTS)

check: $(VENV)/.installed-dev
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) mypy
	$(RUN) mypy tests
	$(RUN) mypy tools examples

format: $(VENV)/.installed-dev
	$(RUN) ruff check --fix
	$(RUN) ruff format

lock: $(VENV)/bin/uv
	$(VENV)/bin/uv pip compile pyproject.toml --extra dev --extra gpu --extra kafka-python --universal --python-version 3.11 \
		--generate-hashes --no-header --quiet --output-file requirements.lock

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/bin/uv:
	@test -n "$(PYTHON)" || { echo "recurra needs Python 3.11 or newer; set PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check "uv>=0.9,<1"

$(VENV)/.installed: pyproject.toml requirements.lock | $(VENV)/bin/uv
	@echo "installing recurra into $(VENV) (a few minutes the first time) ..."
	$(INSTALL) --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml requirements.lock | $(VENV)/bin/uv
	@echo "installing recurra and its tests into $(VENV) (a few minutes the first time) ..."
	$(INSTALL) --editable ".[dev]"
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-gpu: pyproject.toml requirements.lock | $(VENV)/bin/uv
	@echo "installing recurra, its tests and triton into $(VENV) (a few minutes the first time) ..."
	$(INSTALL) --editable ".[dev,gpu]"
	@touch $@ $(VENV)/.installed $(VENV)/.installed-dev
