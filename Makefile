# make run: the paper's method and lrp's own on embedded data; make test: the tests that CI runs; make test-all: those that take long as well, the site among them, before a release; make check: lint, format and types;
# make docs: the tables that scripts write, and the site in docs/_build/html; make figures: experiments/results/*.png and .pdf, from the tables there; make fault-campaign: kills, damaged files, full disks, bad inputs, for an hour and a half. Each builds .venv first, once; pip does not compile what may never be imported.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run check test test-all docs figures fault-campaign clean

run: .venv/installed
	$(BIN)/python -m lrp tour

check: .venv/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

test: .venv/tested
	$(BIN)/python -m pytest tests -m "not long" -n 2 --dist worksteal --durations=5

test-all: .venv/documented
	$(BIN)/python -m pytest tests -n 2 --dist worksteal --durations=5

.venv/installed: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "lrp needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-compile --no-deps -e .
	touch $@

.venv/tested: .venv/installed
	$(BIN)/python -m pip install --quiet --no-compile -e '.[test,dev]'
	touch $@

.venv/documented: .venv/tested
	$(BIN)/python -m pip install --quiet --no-compile -e '.[docs]'
	touch $@

fault-campaign: .venv/tested
	PYTHONPATH=.:tests OMP_NUM_THREADS=1 $(BIN)/python -m faults.campaign
	$(BIN)/python docs/tables.py

docs: .venv/documented
	$(BIN)/python docs/make.py
	$(BIN)/python docs/tables.py
	$(BIN)/python -m sphinx -W --keep-going -b html -c docs . docs/_build/html

figures: .venv/installed
	$(BIN)/python experiments/draw.py

clean:
	rm -rf .venv build docs/_build *.egg-info
