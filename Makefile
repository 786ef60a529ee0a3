# Every target does its own set-up: a virtual environment in .venv with the versions of constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_ROOT ?= runs/demo

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Tests start hundreds of processes, each of which would compile every module anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: setup demo test test-fault test-proof check format bench clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "omnimill needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	@# torch first and by itself: pip then keeps the build that fits this machine
	$(BIN)/pip install --quiet torch==$$(sed -n 's/^torch==//p' constraints.txt)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[assets3d,fetch,hdf5,web,scorers,server,demo,dev]'
	touch $@

demo: setup
	$(BIN)/omnimill demo --root $(DEMO_ROOT)

test: setup
	$(BIN)/python -m pytest --numprocesses 2

test-fault: setup
	$(BIN)/python -m pytest -m fault --timeout 1200 --numprocesses 2

test-proof: setup
	$(BIN)/python -m pytest -m proof

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy omnimill
	$(MAKE) test

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup
	$(BIN)/omnimill bench

clean:
	rm -rf $(VENV) runs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
