# Needs Python 3.11 or later (with pip) and make; everything else is installed into .venv.
#
#   make demo     the example project, on http://127.0.0.1:8000/ (PORT, DATABASE_URL, CELERY_BROKER_URL, DB=postgres)
#   make test     the suite, on SQLite and on an embedded PostgreSQL, and on DATABASE_URL where set (ARGS="-k expiry")
#   make matrix   most of the suite on each Python and Django of tox.ini
#   make lint     ruff, mypy, import contracts, missing migrations
#   make bench    what things cost
#   make docs     the documentation, in docs/_build/html
#   make venv     everything a developer needs
#   make format   let ruff rewrite what it can
#   make clean    forget the virtual environment and what was built (make clean-demo: the demo's data)

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PORT   ?= 8000
ARGS   ?=
PYTEST := -m pytest -n 3 --dist loadfile --no-loadscope-reorder

# Named so that a demo under way does not notice what is exported for tests, and the other way round.
export PORT
export DB
export PYTHONUNBUFFERED = 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

.PHONY: help
help:
	@sed -n '3,$${/^#/!q;s/^# \{0,1\}//p;}' Makefile

# ------------------------------------------------------------------------------------------------ virtual environment

# One stamp for each dependency group; a change of pyproject.toml makes them all stale.
$(VENV)/.installed-%: pyproject.toml $(VENV)/.uv
	@echo "Installing what '$*' needs into $(VENV) …"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[all]' --group $*
	@touch $@

$(VENV)/.uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or later is needed, and $(PYTHON) is not: make PYTHON=/path/to/python3.11 …" >&2; exit 1; }
	@echo "Creating the virtual environment $(VENV) …"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@touch $@

.PHONY: venv
venv: $(VENV)/.installed-dev

# --------------------------------------------------------------------------------------------------------------- demo

.PHONY: demo
demo: $(VENV)/.installed-demo
	@exec $(BIN)/python -m example_project.demo

.PHONY: clean-demo
clean-demo:
	rm -rf var

# -------------------------------------------------------------------------------------------------------------- tests

# Stops at the first engine on which something fails, so that the last lines are always the summary that counts.
.PHONY: test
test: $(VENV)/.installed-test
	@echo "== The suite on SQLite =="
	@TEST_DATABASE=sqlite $(BIN)/python $(PYTEST) $(ARGS)
	@echo "== The suite on PostgreSQL, embedded =="
	@TEST_DATABASE=postgres $(BIN)/python $(PYTEST) $(ARGS)
ifneq ($(strip $(DATABASE_URL)),)
	@echo "== The suite on DATABASE_URL =="
	@TEST_DATABASE=url $(BIN)/python $(PYTEST) $(ARGS)
endif

# The Pythons and Djangos of tox.ini, without what `make test` alone covers: the browser and the slow ones.
.PHONY: matrix
matrix: $(VENV)/.installed-dev
	@$(BIN)/tox run --quiet $(if $(ARGS),-- $(ARGS))

.PHONY: bench
bench: $(VENV)/.installed-test
	@exec $(BIN)/python -m benchmarks $(ARGS)

# --------------------------------------------------------------------------------------------------------------- lint

.PHONY: lint
lint: $(VENV)/.installed-lint
	@echo "== ruff =="
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@echo "== mypy =="
	@$(BIN)/mypy
	@echo "== import contracts =="
	@PYTHONPATH=. $(BIN)/lint-imports
	@echo "== migrations =="
	@TEST_DATABASE=sqlite DJANGO_SETTINGS_MODULE=tests.settings $(BIN)/python manage.py makemigrations --check --dry-run

.PHONY: format
format: $(VENV)/.installed-lint
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

.PHONY: docs
docs: $(VENV)/.installed-docs
	@$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

.PHONY: clean
clean:
	rm -rf $(VENV) .tox .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist docs/_build
