# Two commands on a fresh machine: `make demo` and `make test`. Both install what they need.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
PAGES := $(filter-out audit core-v1 local tuning, $(notdir $(wildcard results/*)))
# Never let the top-level folders (datasets, benchmark, ...) shadow packages of the same name.
export PYTHONSAFEPATH := 1
# More threads than free cores slow small networks down; a run states how many it used.
export OMP_NUM_THREADS ?= 1

.PHONY: install demo test slow lint types check pages clean

# Every network library is pinned to a tested version by constraints.txt (torch: the CPU build where the index has one).
$(BIN)/realmbench: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

install: $(BIN)/realmbench

# The main job end to end on the small embedded dataset: teacher, distillation, student, controls, baselines, table.
demo: install
	$(BIN)/realmbench run --dataset synthetic-reach:demo --preset tiny --suite demo --results-dir build/demo \
		--model realm-student --model realm-pooled --model gru --model wiener

test: install
	$(BIN)/python -m pytest

# Minutes of work: full-size simulation, long streams.
slow: install
	$(BIN)/python -m pytest -m slow

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy reads an installed copy, because it does not follow the editable install's mapping of folders.
types: install
	rm -rf build/types
	$(BIN)/python -m pip install --quiet --no-deps --target build/types .
	cd build/types && MYPYPATH=. ../../$(BIN)/mypy --config-file ../../pyproject.toml -p realmbench

check: lint types test

# What is made from the run records: leaderboard.md, and a page in the folder of every other suite.
pages: install
	$(BIN)/realmbench leaderboard --suite core-v1
	for suite in $(PAGES); do $(BIN)/realmbench leaderboard --suite $$suite --output results/$$suite/README.md || exit 1; done

clean:
	rm -rf build $(VENV) .pytest_cache .mypy_cache .ruff_cache *.egg-info
