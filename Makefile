# make run: the whole of lrp on embedded data; make test: all tests. Both build .venv first, once.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test clean

run: .venv/installed
	$(BIN)/python -m lrp.run -m blocking=alds,square,none scorer=magnitude,relative_error,perturbation,variance

test: .venv/tested
	$(BIN)/python -m pytest tests -n 2 --dist worksteal --durations=5
	$(BIN)/python -m pytest -n 2 --nbmake --nbmake-timeout=3600 notebooks

.venv/installed: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "lrp needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps -e .
	touch $@

.venv/tested: .venv/installed
	$(BIN)/python -m pip install --quiet -e '.[test]'
	touch $@

clean:
	rm -rf .venv build *.egg-info
