PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= 2

.PHONY: install demo serve test test-long check format bench clean

install: $(STAMP)

# torch first and by range: a looser request would pull a GPU build of several gigabytes.
$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet 'torch>=2.11,<2.14'
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $(STAMP)

demo: install
	$(BIN)/python -m demo.run

serve: install
	$(BIN)/python -m demo.run --keep-serving

# Tests of one file stay together: they share servers. Each worker has a core of its own.
test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not long" --numprocesses $(WORKERS) --dist loadfile

test-long: install
	$(BIN)/python -m pytest -m long --timeout 3600

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: install
	$(BIN)/python -m bench

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
