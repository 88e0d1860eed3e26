# Needs Python 3.11+ and make, nothing else. PYTHON names another interpreter, VENV another folder;
# `make demo ARGS=--no-ui` ends before the web UI.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test lint bench soak clean

demo: $(VENV)/.installed
	$(BIN)/readmodel demo $(ARGS)

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed
	$(BIN)/python -m readmodel_pipelines_tests.benchmarks.reconcile
	$(BIN)/python -m readmodel_pipelines_tests.benchmarks.repair
	$(BIN)/python -m readmodel_pipelines_tests.benchmarks.verification
	$(BIN)/python -m readmodel_pipelines_tests.benchmarks.rebuild

soak: $(VENV)/.installed
	$(BIN)/python -m pytest -s readmodel_pipelines_tests/soak

clean:
	rm -rf $(VENV)

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[mongod,postgres,dev]"
	touch $@
