# make demo   set-up, then a ViT trained, tested and reported on handwritten digits in about a minute
# make test   set-up and all tests; make check: format, lint, types, architecture

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check bench clean

demo: .venv/.installed
	$(BIN)/patchlight train quickstart --overwrite

# A process for each core, at most four; a file's tests stay together, for they share what they trained.
test: .venv/.installed-dev
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

check: .venv/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py

# Speed and memory beside timm, Hugging Face, vit-pytorch, torchvision and kornia, about 40 minutes on two cores that do
# nothing else; these tables of docs/results.md are written anew (ablation, accuracy and pretraining take hours). SOURCE is
# the data set whose start-up is timed.
SOURCE ?= cifar10
bench: .venv/.installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	$(BIN)/python -m benchmarks step data inference memory scaling roofline breakdown startup agreement --source $(SOURCE)
	$(BIN)/python -m benchmarks.tables

.venv/bin/python:
	$(PYTHON) -m venv .venv

# A stamp per set of packages, renewed when the list of packages changes.
.venv/.installed: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

.venv/.installed-dev: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@ .venv/.installed

clean:
	rm -rf .venv build dist *.egg-info src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
