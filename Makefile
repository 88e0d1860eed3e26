# Needs Python 3.11 to 3.14 and make, nothing else. PYTHON names another interpreter, VENV another folder;
# `make demo ARGS=--no-ui` ends before the web UI.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))
VERSION := import sys; print(*sys.version_info[:2])

.PHONY: demo test lint lowest servers servers-short bench bench-more soak clean python

demo: $(VENV)/.installed
	$(BIN)/readmodel demo $(ARGS)

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# With the oldest versions that pyproject.toml admits of what the program itself needs. As wheels: a newer Python has none
# of the very oldest, and would build them for an hour, or fail to.
lowest: $(VENV)/lowest/.installed
	$(VENV)/lowest/bin/python -m pytest -n 2 readmodel_pipelines_tests/unit readmodel_pipelines_tests/e2e/test_definitions.py
	export READMODEL_DATA_DIR=$$(mktemp -d) && $(VENV)/lowest/bin/readmodel demo --no-ui \
		&& $(VENV)/lowest/bin/readmodel server stop && rm -r "$$READMODEL_DATA_DIR"

# Every verb, the integration tests and the demo on each server that a package carries; the short one is every verb on
# two of them.
servers: $(VENV)/.installed
	$(BIN)/python -m readmodel_pipelines_tests.support.servers.matrix

servers-short: $(VENV)/.installed
	$(BIN)/python -m readmodel_pipelines_tests.support.servers.matrix --short

# One table. BASE names a commit that is measured beside, CHATS the size (20 events each), ROUNDS how often, JSON a file.
bench: $(VENV)/.installed
	$(BIN)/python -m readmodel_pipelines_tests.benchmarks.table $(if $(BASE),--base $(BASE)) \
		$(if $(CHATS),--chats $(CHATS)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(JSON),--json $(JSON))

# What is not in the table: memory, repairs, slow networks, what a verification costs where little has changed.
bench-more: $(VENV)/.installed
	$(BIN)/python -m readmodel_pipelines_tests.benchmarks.reconcile
	$(BIN)/python -m readmodel_pipelines_tests.benchmarks.repair
	$(BIN)/python -m readmodel_pipelines_tests.benchmarks.verification
	$(BIN)/python -m readmodel_pipelines_tests.benchmarks.rebuild
	$(BIN)/python -m readmodel_pipelines_tests.benchmarks.network
	$(BIN)/python -m readmodel_pipelines_tests.benchmarks.arrivals
	$(BIN)/python -m readmodel_pipelines_tests.benchmarks.growth
	$(BIN)/python -m readmodel_pipelines_tests.benchmarks.launch

soak: $(VENV)/.installed
	$(BIN)/python -m pytest -s readmodel_pipelines_tests/soak
	$(BIN)/python -m pytest -n 4 --dist loadfile --whole -m "each_once or whole or hypothesis"
	$(BIN)/python -m pytest -n 4 --dist loadfile --read-order scan readmodel_pipelines_tests/integration

clean:
	rm -rf $(VENV)

# Known at once, and not after minutes: whether the Python works for this, and whether the environment has that one.
python:
	@if [ -L $(BIN)/python ]; then its=$(BIN)/python; else its=$(PYTHON); fi; \
		$$its -c '$(SUPPORTED)' 2>/dev/null || { \
		echo "$$its is no Python 3.11, 3.12, 3.13 or 3.14. Name one: \`make PYTHON=python3.12 …\`, after \`make clean\` if there is a $(VENV)." >&2; \
		exit 1; }
ifneq ($(origin PYTHON),file)
	@[ ! -L $(BIN)/python ] || [ "$$($(BIN)/python -c '$(VERSION)')" = "$$($(PYTHON) -c '$(VERSION)')" ] || { \
		echo '$(VENV) was made with another Python than $(PYTHON): `make clean` first, or leave PYTHON away.' >&2; \
		exit 1; }
endif

$(VENV)/.installed: pyproject.toml | python
	[ -L $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[mongod,postgres,dev]"
	touch $@

$(VENV)/lowest/.installed: pyproject.toml | python
	$(PYTHON) -m venv $(VENV)/lowest
	$(VENV)/lowest/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(VENV)/lowest/bin/uv pip install --quiet --python $(VENV)/lowest/bin/python --resolution lowest-direct \
		--only-binary :all: --editable ".[mongod,postgres,dev]"
	touch $@
