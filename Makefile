# make demo: the whole story on real servers.  make test: set up and pass the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PEERS := .venv-peers
UV := $(BIN)/uv pip
export UV_NO_PROGRESS := 1
# Where it is set, every command would compile all its imports anew: a second instead of a third of one.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check lint types layers format bench bench-follow bench-lint bench-locks bench-memory bench-peers bench-swap bench-up chaos ray registry lock clean help

help:
	@echo "make demo    set everything up and run the main job with real data"
	@echo "make test    set everything up and run the tests"
	@echo "make check   what CI runs: format, lint, types, layers, tests"
	@echo "make bench-lint  compare the linter with the verdicts of others"
	@echo "make bench-locks measure how long a reader stalls behind a waiting migration"
	@echo "make bench   measure rebuilds against the floor, in one run"
	@echo "make bench-follow  measure how many events follow applies a second, and how late"
	@echo "make bench-memory  measure the memory of rebuilds of any length"
	@echo "make bench-peers  measure rebuilds against Spark and Flink, in one run"
	@echo "make bench-swap  measure what readers notice of swaps, one a second"
	@echo "make bench-up  measure up against plain alembic, in one run"
	@echo "make chaos   kill runs at random moments, and look"
	@echo "make ray     rebuild on a Ray cluster of several nodes, and kill one"
	@echo "make registry  run what needs a real Schema Registry, which is 159 MB to download"
	@echo "make lock    renew requirements/*.txt after a change of pyproject.toml"
	@echo "make clean   remove what the above made in this folder"

demo: $(VENV)/demo.stamp
	@$(BIN)/migrator demo $(ARGS)

test: $(VENV)/dev.stamp
	@$(BIN)/pytest -n auto --dist worksteal $(ARGS)

check: lint types layers test

lint: $(VENV)/dev.stamp
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .

types: $(VENV)/dev.stamp
	@$(BIN)/mypy

layers: $(VENV)/dev.stamp
	@$(BIN)/lint-imports

format: $(VENV)/dev.stamp
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench-lint: $(VENV)/dev.stamp
	@$(BIN)/python -m bench.lint $(ARGS)

bench-locks: $(VENV)/dev.stamp
	@$(BIN)/python -m bench.locks $(ARGS)

bench: $(VENV)/dev.stamp
	@$(BIN)/python -m bench $(ARGS)

bench-follow: $(VENV)/dev.stamp
	@$(BIN)/python -m bench.follow $(ARGS)

bench-memory: $(VENV)/dev.stamp
	@$(BIN)/python -m bench.memory $(ARGS)

bench-peers: $(VENV)/dev.stamp $(PEERS)/spark.stamp $(PEERS)/flink.stamp
	@$(BIN)/python -m bench.peers $(ARGS)

bench-swap: $(VENV)/dev.stamp
	@$(BIN)/python -m bench.swap $(ARGS)

bench-up: $(VENV)/dev.stamp
	@$(BIN)/python -m bench.up $(ARGS)

chaos: $(VENV)/dev.stamp
	@$(BIN)/pytest -m chaos $(ARGS)

ray: $(VENV)/ray.stamp
	@$(BIN)/pytest -m ray $(ARGS)

registry: $(VENV)/dev.stamp
	@$(BIN)/pytest -m registry $(ARGS)

$(VENV)/uv.stamp: requirements/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "migrator needs Python 3.11 or newer, found $$($(PYTHON) --version 2>&1)."; \
	  echo "Name one: make PYTHON=python3.13 $(MAKECMDGOALS)"; exit 2; }
	@echo "Setting up $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@touch $@

# The project itself is installed without build isolation: its build tools are locked, too.
$(VENV)/demo.stamp: $(VENV)/uv.stamp requirements/demo.txt pyproject.toml
	@VIRTUAL_ENV=$(VENV) $(UV) install --quiet --require-hashes -r requirements/demo.txt
	@VIRTUAL_ENV=$(VENV) $(UV) install --quiet --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/demo.stamp requirements/dev.txt
	@VIRTUAL_ENV=$(VENV) $(UV) install --quiet --require-hashes -r requirements/dev.txt
	@touch $@

# Other engines, some 900 MB on disk, each in an environment of its own.
$(PEERS)/%.stamp: requirements/%.txt $(VENV)/uv.stamp
	@echo "Setting up $(PEERS)/$* ..."
	@$(PYTHON) -m venv $(PEERS)/$*
	@VIRTUAL_ENV=$(PEERS)/$* $(UV) install --quiet --require-hashes -r $<
	@touch $@

$(VENV)/ray.stamp: $(VENV)/dev.stamp requirements/ray.txt
	@VIRTUAL_ENV=$(VENV) $(UV) install --quiet --require-hashes -r requirements/ray.txt
	@touch $@

COMPILE = $(UV) compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
  --no-header --no-emit-index-url --no-emit-find-links

lock: $(VENV)/uv.stamp
	@VIRTUAL_ENV=$(VENV) $(COMPILE) requirements/uv.in -o requirements/uv.txt
	@VIRTUAL_ENV=$(VENV) $(COMPILE) --extra sandbox pyproject.toml requirements/build.in -o requirements/demo.txt
	@VIRTUAL_ENV=$(VENV) $(COMPILE) --extra sandbox --extra docker --group dev pyproject.toml requirements/build.in \
	  -c requirements/demo.txt -o requirements/dev.txt
	@VIRTUAL_ENV=$(VENV) $(COMPILE) --extra ray pyproject.toml \
	  -c requirements/dev.txt -o requirements/ray.txt
	@VIRTUAL_ENV=$(VENV) $(COMPILE) requirements/spark.in -o requirements/spark.txt
	@VIRTUAL_ENV=$(VENV) $(COMPILE) requirements/flink.in -o requirements/flink.txt

clean:
	@rm -rf $(VENV) $(PEERS) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis bench/results
