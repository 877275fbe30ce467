# Everything a person needs: `make demo` runs it, `make test` tests it. Needs Python >= 3.11 and make, nothing else.

# TORCH=cpu installs torch without CUDA (smaller); any value of uv's --torch-backend works
TORCH ?=
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
VENV := .venv
RUN := $(VENV)/bin/python -m
DEMO ?=
TESTS ?=

# the root's folders must not be importable a second time, beside recurra.*
export PYTHONSAFEPATH := 1
# the engine has its own threads; a BLAS that starts more of them only takes turns with them
export OPENBLAS_NUM_THREADS ?= 1
export OMP_NUM_THREADS ?= 1

# without compiled modules on disk every process compiles torch's sources anew, ten seconds each
unexport PYTHONDONTWRITEBYTECODE

# torch's own builds have other hashes than those that the lock knows
INSTALL := $(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --constraints requirements.lock \
	$(if $(TORCH),--torch-backend=$(TORCH) --no-verify-hashes)

.PHONY: demo test test-slow check format lock clean
.DEFAULT_GOAL := demo

demo: $(VENV)/.installed
	$(RUN) recurra.cli demo $(DEMO)

test: $(VENV)/.installed-dev
	$(RUN) pytest $(TESTS)

test-slow: $(VENV)/.installed-dev
	$(RUN) pytest -m slow $(TESTS)

check: $(VENV)/.installed-dev
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) mypy
	$(RUN) mypy tests

format: $(VENV)/.installed-dev
	$(RUN) ruff check --fix
	$(RUN) ruff format

lock: $(VENV)/bin/uv
	$(VENV)/bin/uv pip compile pyproject.toml --extra dev --extra gpu --universal --python-version 3.11 \
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
