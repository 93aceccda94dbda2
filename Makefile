# `make quickstart` and `make test` also work on a fresh machine: both install into .venv first.
.PHONY: help quickstart test test-all check bench cards clean
.DELETE_ON_ERROR:
# pip does not compile modules here (--no-compile). Python compiles them on first import and must be able to keep them.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
BIN := $(VENV)/bin
# One process per core, with one thread each. --dist loadfile: tests of one file share their fixtures.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile
STAMP := $(VENV)/.installed
OUTPUT ?= runs/quickstart

help:
	@echo "make quickstart   installs, pretrains on bundled images, evaluates, prints the result (10 minutes on 2 cores)"
	@echo "make test         installs, runs the tests"
	@echo "make test-all     installs, runs the tests and the slow tests"
	@echo "make check        runs ruff"
	@echo "make bench        measures speed and memory, compared with other libraries"
	@echo "make cards        writes the cards and all result tables from the recorded results in model_cards/"
	@echo "make clean        removes .venv, runs and build files"

# One seed and fewer epochs than the full recipe, so that training takes about five minutes.
quickstart: $(STAMP)
	$(BIN)/python recipes/rotation_emoji.py --seed 0 --num_train_epochs 12 --output_dir $(OUTPUT) \
		$(if $(wildcard $(OUTPUT)),--resume_from_checkpoint last)

test: $(STAMP)
	$(PYTEST) -m "not slow"

test-all: $(STAMP)
	$(PYTEST)

check: $(STAMP)
	@$(BIN)/ruff --version >/dev/null 2>&1 || $(BIN)/pip install --quiet --editable .[dev]
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

bench: $(STAMP)
	$(BIN)/pip install --quiet --editable .[bench]
	$(BIN)/python benchmarks/rotation.py
	$(BIN)/python benchmarks/stream.py
	$(BIN)/python benchmarks/bad_samples.py
	$(BIN)/python benchmarks/data_faults.py
	$(BIN)/python benchmarks/jpeg.py
	$(BIN)/python benchmarks/masked_lm.py
	$(BIN)/python benchmarks/contrastive.py
	$(BIN)/python benchmarks/contrastive_memory.py
	$(BIN)/python benchmarks/captioning.py
	$(BIN)/python benchmarks/flava.py
	$(BIN)/python benchmarks/image_objectives.py
	$(BIN)/python benchmarks/sound_and_film.py

cards: $(STAMP)
	$(BIN)/python -m hf_pretext.cards model_cards

clean:
	rm -rf $(VENV) runs build *.egg-info

# Takes the newest Python that runs and can make environments. A shim of a version manager may exist but fail.
$(STAMP): setup.cfg pyproject.toml
	@set -e; \
	if ! $(BIN)/python -c '' 2>/dev/null; then \
		for python in python3.14 python3.13 python3.12 python3.11 python3; do \
			if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then break; fi; \
			python=; \
		done; \
		if [ -z "$$python" ]; then echo "No working Python 3.11 or newer with venv was found. Install one, then run make again." >&2; exit 1; fi; \
		echo "Making $(VENV) with $$($$python --version). The installation takes a few minutes."; \
		$$python -m venv --clear $(VENV); \
	fi
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --editable .[test]
	@touch $@
