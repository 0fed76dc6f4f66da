# Every target prepares .venv by itself and reuses it; nothing is installed again while pyproject.toml and
# constraints.txt stay as they are. `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WORKERS ?= auto

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow lint format bench clean table-h36m table-humaneva table-3dhp table-cmu table-ntu table-ma52 table-h36m-prediction \
	table-humaneva-prediction

help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  make %-26s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# torch goes first and pinned: pip then takes the build this machine offers (the CPU build from a local index or a
# find-links folder, the CUDA build from the public index on Linux) and nothing later replaces it.
$(READY): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,export]'
	@touch $@

setup: $(READY) ## prepare .venv: the editable package with the extras dev and export
	@$(BIN)/python -c "import sys, torch; print('python', sys.version.split()[0], '| torch', torch.__version__, '| CUDA', torch.version.cuda)"

demo: $(READY) ## train and test a small lifter on built-in motion, draw what it sees (about 4 minutes)
	$(BIN)/python run.py experiment=demo hydra.run.dir=outputs/demo
	$(BIN)/python run.py experiment=demo mode=render ckpt=outputs/demo/checkpoints/best.ckpt hydra.run.dir=outputs/demo/render

test: $(READY) ## the fast tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow and not gpu"

test-slow: $(READY) ## every test, the long forms too
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

lint: $(READY) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## let ruff lay out and repair the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY) ## speed as ratios against plain references, measured in one run
	OMP_NUM_THREADS=1 $(BIN)/python -m scripts.bench

# KINEMA_DATA (or ARGS='--data DIR') says where the data is; checkpoints are looked for in checkpoint/ here and beside
# the data (ARGS='--checkpoints DIR'). ARGS takes overrides too: ARGS='trainer=gpu'. docs/results/tables.md.
table-h36m: $(READY) ## Human3.6M: published results beside those of checkpoints and runs at hand
	$(BIN)/python -m scripts.table h36m $(ARGS)

table-humaneva: $(READY) ## HumanEva-I: the same
	$(BIN)/python -m scripts.table humaneva $(ARGS)

table-3dhp: $(READY) ## MPI-INF-3DHP: the same
	$(BIN)/python -m scripts.table 3dhp $(ARGS)

table-cmu: $(READY) ## CMU subset: train what has no finished run yet (ten CPU minutes each), then compare
	OMP_NUM_THREADS=1 $(BIN)/python -m scripts.table cmu --train $(ARGS)

table-ntu: $(READY) ## NTU RGB+D 60 and 120: published results beside those of checkpoints and runs at hand
	$(BIN)/python -m scripts.table ntu $(ARGS)

table-ma52: $(READY) ## MA-52: the same
	$(BIN)/python -m scripts.table ma52 $(ARGS)

table-h36m-prediction: $(READY) ## motion prediction on Human3.6M: the same, with the networks' complexity
	$(BIN)/python -m scripts.table h36m-prediction $(ARGS)

table-humaneva-prediction: $(READY) ## motion prediction on HumanEva-I: the same
	$(BIN)/python -m scripts.table humaneva-prediction $(ARGS)

clean: ## remove what runs and tests have left (not .venv, not the cache)
	rm -rf outputs multirun .pytest_cache .mypy_cache .ruff_cache .hypothesis
