# make setup | demo | test | check | audit | lock
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := 1

.PHONY: setup demo test faults check audit lock static

setup: $(STAMP)

# torch first, by version alone: which build of it fits depends on the machine. Everything else by hash.
$(STAMP): pyproject.toml requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 14) else "need Python 3.11 to 3.13, found " + sys.version.split()[0] + "; set PYTHON=")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --require-hashes --only-binary :all: -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $(STAMP)

# In a folder of its own, so that the checkout stays as it is.
demo: setup
	mkdir -p demo
	cd demo && ../$(BIN)/python -m hpo.run --study demo

static: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

test: static
	$(BIN)/pytest -n logical --maxprocesses 4 --dist worksteal -m "not alone"
	$(BIN)/pytest -m alone

# What kills and outages may do to a study; HPO_LONG_TESTS=1 for hundreds of kills.
faults: setup
	$(BIN)/pytest tests/faults -s

# The quick loop: all that needs no processes of its own.
check: static
	$(BIN)/pytest -m "not slow and not browser" -q

# A known vulnerability of a locked package fails; where nobody can be asked, that is said.
audit: setup
	$(BIN)/python -m tests.audit

# Needs uv, only to resolve for all systems and Pythons at once; installing is pip's. A release of the last seven days is
# passed over: what is wrong with one is found by then.
lock:
	$(PYTHON) -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb")); torch = ["filelock", "fsspec", "jinja2", "networkx", "sympy", "typing-extensions"]; extras = p["project"]["optional-dependencies"]; print(*[r for r in p["project"]["dependencies"] if not r.startswith("torch=")], *extras["dashboard"], *extras["onnx"], *extras["postgres"], *extras["ray"], *extras["recognize"], *p["dependency-groups"]["dev"], *torch, sep="\n")' \
	| uv pip compile - --universal --python-version 3.11 --exclude-newer "7 days" --generate-hashes --no-header --quiet --output-file requirements.lock
