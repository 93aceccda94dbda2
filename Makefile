# Two commands do everything on a fresh machine: `make quickstart` and `make test`.
.PHONY: help quickstart test test-all check bench cards clean
.DELETE_ON_ERROR:
# Modules are compiled when first imported, not all at installation: so they must be allowed to be kept.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
BIN := $(VENV)/bin
# A process a core, each with a thread: tests of one file share what they set up.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile
STAMP := $(VENV)/.installed
OUTPUT ?= runs/quickstart

help:
	@echo "make quickstart   set up, pretrain on the embedded pictures, evaluate, show the result (10 minutes, 2 cores)"
	@echo "make test         set up, run the tests            make test-all   with the slow ones"
	@echo "make check        ruff                             make bench      speed against others"
	@echo "make cards        model_cards/ and the README's table again, from the recorded results"
	@echo "make clean        remove the environment and the runs"

# One seed, and fewer epochs than the recipe's claim: five minutes of training also on a slow day.
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
	$(BIN)/python benchmarks/masked_lm.py
	$(BIN)/python benchmarks/contrastive.py
	$(BIN)/python benchmarks/contrastive_memory.py
	$(BIN)/python benchmarks/flava.py

cards: $(STAMP)
	$(BIN)/python -m hf_pretext.cards model_cards

clean:
	rm -rf $(VENV) runs build *.egg-info

# The newest Python that really runs and can make environments: a version manager's shim may be there and fail.
$(STAMP): setup.cfg pyproject.toml
	@set -e; \
	if ! $(BIN)/python -c '' 2>/dev/null; then \
		for python in python3.14 python3.13 python3.12 python3.11 python3.10 python3; do \
			if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then break; fi; \
			python=; \
		done; \
		if [ -z "$$python" ]; then echo "hf_pretext needs Python 3.10 or newer (with venv), and none here runs." >&2; exit 1; fi; \
		echo "Making $(VENV) with $$($$python --version). Installing takes a few minutes."; \
		$$python -m venv --clear $(VENV); \
	fi
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --editable .[test]
	@touch $@
