# Needs python 3.11 or newer, make and git; everything else comes into .venv.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
# Python compiles what it imports when it first does, which is a small part of what is installed; where
# it may not keep that, every process compiles all of it once more, which doubles its start.
unexport PYTHONDONTWRITEBYTECODE
INSTALL := $(PIP) install --no-compile
export PIP_CONSTRAINT := constraints.txt
# Of a benchmark.
ROUNDS ?= 9

.PHONY: setup demo dashboard test test-operate lint bench clean distclean

# What running needs; what tests need comes on top, once each.
.venv/.run: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) -e ".[train,ops]"
	touch $@

.venv/.dashboard: .venv/.run
	$(INSTALL) -e ".[train,ops,dashboard]"
	touch $@

.venv/.dev: .venv/.run
	$(INSTALL) -e ".[train,ops,s3,postgres,dashboard,dev]"
	touch $@

setup: .venv/.dev

demo: .venv/.run
	$(BIN)/uni-moe run --reason "make demo"

dashboard: .venv/.dashboard
	$(BIN)/uni-moe dashboard

test: .venv/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile

# What starts servers of its own and takes long.
test-operate: .venv/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m operate -rs

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# How fast ours is beside its peers, kept under the machine's name. A bar that is missed ends it with
# an error, once all questions were asked.
bench: .venv/.dev
	failed=; for question in layer lora decode step idle watch size memory features; do \
		$(BIN)/python -m benchmarks $$question --keep --rounds $(ROUNDS) || failed=1; \
	done; test -z "$$failed"

# What can be made again. Registered models (store/) and run folders (runs/) are records: they stay.
clean:
	rm -rf .venv artifacts state registry.sqlite* dvc.lock .dvc/cache .dvc/tmp

# Everything, the records too.
distclean: clean
	rm -rf runs store
