# `make` or `make help` lists the targets. Everything lands in .venv; nothing else is touched.

PYTHON ?= python3
PYTEST_ARGS ?=
# Processes that run tests: compiling, most of their time, uses one core.
WORKERS ?= 2
# A range, not a pin: the lock it writes is what has to be exact.
UV := uv>=0.11,<1

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CODE := armt_jax experiments configs benchmarks tests

# pyright's wrapper asks the network for a newer release at every start; the version is pinned.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.DEFAULT_GOAL := help
.PHONY: help check-python install quickstart test test-all lint format lock clean
# A failed install must not leave a stamp that calls it done.
.DELETE_ON_ERROR:
# Nor does a stamp count where the interpreter it stands for has gone.
ifneq ($(shell test -x $(BIN)/python && echo yes),yes)
.PHONY: $(STAMP)
endif

help: ## List the targets
	@echo "armt_jax: the Associative Recurrent Memory Transformer in JAX"
	@echo
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) \
	  | awk -F'|' '{ printf "%-17s %s\n", $$1, $$2 }'
	@echo
	@echo "make install PYTHON=python3.12 picks the interpreter (3.11, 3.12 or 3.13) of a new .venv;"
	@echo "to change that of an old one: make clean."
	@echo "make test WORKERS=8 PYTEST_ARGS='-k memory' hands arguments to pytest."

# Internal: install and .ci/run ask it.
check-python:
	@version=$$("$(PYTHON)" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null); \
	case "$$version" in \
	  3.11|3.12|3.13) echo "Python $$version ($(PYTHON))" ;; \
	  "") echo "error: PYTHON=$(PYTHON) does not run; armt_jax needs Python 3.11, 3.12 or 3.13" \
	      "(make install PYTHON=python3.12)" >&2; exit 1 ;; \
	  *) echo "error: PYTHON=$(PYTHON) is Python $$version; armt_jax needs 3.11, 3.12 or 3.13" \
	     "(make install PYTHON=python3.12)" >&2; exit 1 ;; \
	esac

install: $(STAMP) ## Build .venv from requirements-lock.txt (again only where that changed)
	@echo "Environment: $(VENV), $$($(BIN)/python --version)"

$(STAMP): requirements-lock.txt requirements.txt pyproject.toml
	@if [ -x $(BIN)/python ]; then \
	  $(MAKE) --no-print-directory check-python PYTHON=$(BIN)/python \
	    || { echo "error: $(VENV) cannot be used; make clean removes it" >&2; exit 1; }; \
	else \
	  $(MAKE) --no-print-directory check-python; \
	fi
	@if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  echo "== Creating $(VENV)"; "$(PYTHON)" -m venv --clear $(VENV); \
	fi
	@echo "== Installing the locked packages (340 MB to fetch, 1.4 GB on disk; one to five minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-lock.txt
	@echo "== Installing armt_jax itself, editable"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@echo "== Checking that the tools start"
	@$(BIN)/python -c 'import jax; print("jax", jax.__version__, "on", jax.default_backend())'
	@$(BIN)/ruff --version
	@$(BIN)/pyright --version
	@touch $@
	@echo "== Installed in $(VENV)"

quickstart: install ## Train ARMT to remember 15 pairs, evaluate, print a table, write a figure
	@echo "== Training ARMT on Associative Retrieval Remember (one to three minutes on 2 cores)"
	$(BIN)/python -m experiments.main --config=configs/ar_remember.py:quickstart

test: lint ## Lint, type-check and run the tests, without the slow ones
	@echo "== Tests (without the slow ones)"
	$(BIN)/python -m pytest -m "not slow" -n $(WORKERS) $(PYTEST_ARGS)

test-all: lint ## The same with the slow tests, programs compiled as users compile them
	@echo "== Tests (all)"
	JAX_DISABLE_MOST_OPTIMIZATIONS=0 $(BIN)/python -m pytest -n $(WORKERS) $(PYTEST_ARGS)

lint: install ## Check formatting, lint and types
	@echo "== Formatting"
	$(BIN)/ruff format --check $(CODE)
	@echo "== Lint"
	$(BIN)/ruff check $(CODE)
	@echo "== Types"
	$(BIN)/pyright

format: install ## Format the code and apply the safe fixes
	$(BIN)/ruff check --fix-only $(CODE)
	$(BIN)/ruff format $(CODE)

lock: install ## Write requirements-lock.txt anew from the ranges, for Python 3.11 to 3.13
	@echo "== Resolving requirements-dev.txt"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(UV)"
	$(BIN)/uv pip compile --universal --python-version 3.11 --fork-strategy fewest --upgrade \
	  --quiet --custom-compile-command "make lock" --output-file requirements-lock.txt \
	  requirements-dev.txt

clean: ## Remove .venv, caches and build leftovers (runs/ and results/ stay)
	rm -rf $(VENV) .pytest_cache .ruff_cache build dist *.egg-info
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +
