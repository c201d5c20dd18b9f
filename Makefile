# make demo          set-up, then a ViT trained, tested and reported on handwritten digits in about a minute
# make test          set-up and all tests but the slow ones; make check: format, lint, types, architecture
# make test-fuzz     FUZZ=10 times as many random files and words as `make test` tries, with other seeds, in some minutes
# make test-faults   kills, full disks, soaks and floods that take longer than those that `make test` runs
# make test-slow     the tests that `make test` leaves out as they take long, but for the notebooks
# make test-examples all notebooks of examples/ from top to bottom, and the slow tests of the benchmarks
# make lock          constraints.txt anew: the versions that the set-up takes
# make audit         asks for known weaknesses of the locked packages (SERVICE=pypi or osv)
# make test-oldest   what `make test` runs, with the lowest versions that pyproject.toml allows; make test-newest: the newest
# make gpu-results   the recipes of the five systems at full length, as many as one GPU finishes in MINUTES=30
# make wheel         the package as a wheel in dist/, installed into an empty environment elsewhere and tried there
# make clean         away with all that these have made, runs excepted

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-fuzz test-faults test-slow test-examples check bench gpu-results lock audit test-oldest test-newest wheel clean

demo: .venv/.installed
	$(BIN)/python tools/install.py --versions
	$(BIN)/patchlight train quickstart --overwrite

# A process for each core, at most four; a file's tests stay together, for they share what they trained.
PYTEST := python -m pytest -n auto --maxprocesses 4 --dist loadfile --durations 30
test: .venv/.installed-dev
	$(BIN)/python tools/install.py --versions dev
	$(BIN)/$(PYTEST)

FUZZ ?= 10
test-fuzz: .venv/.installed-dev
	FUZZ=$(FUZZ) $(BIN)/$(PYTEST) -m fuzz

test-faults: .venv/.installed-dev
	$(BIN)/$(PYTEST) -m faults

test-slow: .venv/.installed-dev
	$(BIN)/$(PYTEST) -m slow --ignore tests/test_examples.py --ignore tests/test_benchmarks.py

test-examples: .venv/.installed-dev
	$(BIN)/python -m pytest -n auto --maxprocesses 4 -m slow tests/test_examples.py tests/test_benchmarks.py

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
	$(BIN)/python tools/install.py $(INSTALL) dev bench
	$(BIN)/python -m benchmarks step data inference memory scaling roofline breakdown startup agreement --source $(SOURCE)
	$(BIN)/python -m benchmarks.tables

# The five systems' recipes at full length on one GPU: as many as fit into MINUTES, the shortest first, with forecasts.
# The runs stay in runs/full, so that the same command goes on with what was cut off; the rows go into docs/results.md.
MINUTES ?= 30
gpu-results: .venv/.installed-dev
	$(BIN)/python -m benchmarks full --device cuda --minutes $(MINUTES) --source $(SOURCE) --keep runs/full
	$(BIN)/python -m benchmarks.tables

# The newest versions that pyproject.toml allows, one of each package for Python 3.11 to 3.13 and every system, and the
# sha256 of all their wheels. torch is the largest of them by far and is changed on purpose only:
# make lock TORCH=2.15.0 TORCHVISION=0.29.2.
TORCH ?= 2.14.1
TORCHVISION ?= 0.29.1
lock: .venv-lock/bin/python
	.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'
	{ echo "# The versions that \`make demo\` and \`make test\` install, for Python 3.11 to 3.13. Written by \`make lock\`; do not"; \
	  echo "# edit. torch and torchvision are held at what was asked for; another pair: make lock TORCH=... TORCHVISION=..."; \
	  printf 'torch==%s\ntorchvision==%s\nsetuptools>=77\n' $(TORCH) $(TORCHVISION) | .venv-lock/bin/uv pip compile --quiet \
	    --universal --python-version 3.11 --fork-strategy fewest --extra dev --extra bench --only-binary :all: --no-config \
	    --no-header --annotation-style line --generate-hashes pyproject.toml - ; } > constraints.txt.new
	mv constraints.txt.new constraints.txt

# pip-audit has an environment of its own, as it brings 27 packages along. It needs the network: where the data cannot be
# reached, that is said, and make ends with an error.
SERVICE ?= pypi
audit: .venv-audit/bin/python
	.venv-audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1
	.venv-audit/bin/python tools/audit.py $(SERVICE)

# The two ends of the ranges in pyproject.toml, each in an environment of its own (5 GB); docs/versions.md tells what
# passed. The newest come from PyPI whatever caps pip.conf and PIP_CONSTRAINT set.
test-oldest: .venv-oldest/bin/python
	.venv-oldest/bin/python tools/install.py --oldest dev
	.venv-oldest/bin/$(PYTEST)

test-newest: .venv-newest/bin/python
	.venv-newest/bin/python tools/install.py --newest dev
	.venv-newest/bin/$(PYTEST)

wheel: .venv/.installed-dev
	rm -rf build dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/python tools/check_wheel.py

%/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $* || { rm -rf $*; exit 1; }

# A stamp per set of packages, renewed when the list of packages or their versions change. INSTALL=--strict takes the files
# of the lock or stops; INSTALL=--unchecked takes the locked versions from an index that builds its packages itself.
INSTALL ?=
.venv/.installed: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python tools/install.py $(INSTALL)
	touch $@

.venv/.installed-dev: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python tools/install.py $(INSTALL) dev
	touch $@ .venv/.installed

clean:
	rm -rf .venv .venv-lock .venv-audit .venv-oldest .venv-newest build dist *.egg-info src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
