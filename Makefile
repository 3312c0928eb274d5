# Every target makes or reuses .venv in this folder by itself, from the pinned lock.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO := outputs/make_demo

.PHONY: demo test lint format lock
.DEFAULT_GOAL := test

$(READY): requirements.lock pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

# train S4ECA on drawn scenes, evaluate the checkpoint, and once more with shuffled expressions
demo: $(READY)
	rm -rf $(DEMO)
	$(BIN)/python train.py experiment=demo hydra.run.dir=$(DEMO)
	$(BIN)/python eval.py ckpt=$(DEMO)/checkpoints/best.ckpt
	$(BIN)/python eval.py ckpt=$(DEMO)/checkpoints/best.ckpt shuffle_expressions=true pictures=0

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not gpu"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# newest versions that pyproject.toml allows; only names and versions are kept
lock: $(READY)
	$(BIN)/python -m pip install --quiet --dry-run --ignore-installed --report $(VENV)/report.json '.[dev,wandb]'
	$(BIN)/python -c "import json; \
	rows = [i['metadata'] for i in json.load(open('$(VENV)/report.json'))['install']]; \
	pins = sorted(r['name'].lower().replace('_', '-') + '==' + r['version'] for r in rows if r['name'] != 's4eca'); \
	head = open('requirements.lock').readline(); \
	open('requirements.lock', 'w').write(head + '\n'.join(pins) + '\n')"
