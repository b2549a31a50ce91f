# Every target makes its own environment in .venv where it is missing or out of date.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# a demo and the tutorials need a third of the packages; what has all of them has these, too
USED := $(VENV)/.installed-for-use

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo docs test soak lint bench weights gpu clean

help:
	@echo "make demo   segment a real crop, print its statistics, draw demo-output/overlay.png"
	@echo "make docs   build the documentation site in site/"
	@echo "make test   everything that must hold: style, types, layers, tests"
	@echo "make soak   the long form of the fault tests: an hour and more"
	@echo "make lint   style, types and layers only"
	@echo "make bench  measure speed against peers and limits"
	@echo "make weights RAW=raw.tif LABELS=labels.tif OUTPUT=folder   train the four shipped networks"
	@echo "make gpu DATA=packed OUT=folder   test, measure and train on a GPU, within ten minutes"
	@echo "make clean  remove the environment and everything generated"

$(USED): EXTRAS := report,train,view
$(STAMP): EXTRAS := dev
$(USED) $(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "volseg needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)." \
	    "Give another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing volseg[$(EXTRAS)] into $(VENV), which takes some minutes"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@ $(USED)

demo: $(USED)
	@$(BIN)/python examples/demo.py

docs: $(STAMP)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "open site/index.html"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# all that is written is synced, which a disk takes long for; in memory there must be room for it
MEMORY := $(shell df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 && $$4 > 4000000 { print $$6 }')

# two at a time, as many wait for processes and servers; a file's tests share what they set up, and
# conftest orders the files
test: lint
	$(if $(MEMORY),PYTEST_DEBUG_TEMPROOT=$(MEMORY)) $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

# every fault many times, and 10,000 damaged files
soak: $(STAMP)
	VOLSEG_SOAK=$(or $(SOAK),50) $(BIN)/pytest --timeout 0 -o faulthandler_timeout=0 \
	  tests/faults tests/test_fuzzing.py tests/storage/test_remote.py \
	  tests/stages/test_label.py tests/stages/test_predict.py \
	  tests/stages/test_predict_centerline.py tests/stages/test_repair.py

bench: $(STAMP)
	@set -e; for script in benchmarks/[a-z]*.py; do echo "== $$script"; $(BIN)/python $$script; done

# without RAW, a rehearsal at toy size on the crop that ships
weights: $(STAMP)
	$(BIN)/python studies/train_weights.py $(RAW) $(LABELS) $(if $(OUTPUT),--output $(OUTPUT))

# one call on a GPU of ten minutes: see studies/gpu.py; without DATA a rehearsal at toy size
gpu: $(STAMP)
	$(BIN)/python studies/gpu.py $(if $(DATA),--data $(DATA)) --output $(or $(OUT),gpu-output)

clean:
	rm -rf $(VENV) demo-output site build dist .mypy_cache .ruff_cache .pytest_cache \
	  .import_linter_cache .hypothesis
	find src tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
