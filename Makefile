# `make demo` and `make test` are all that a fresh machine with Python 3.11 or newer needs.
PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest

# Many processes start while this runs: they are not to compile everything anew, wherever that was asked for.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test trace trust check unit format vectors lock clean bench

demo: .venv/ready
	$(BIN)/gesell demo

# In the order of tests/conftest.py, the longest files first, and not those of the most tests.
test: .venv/ready
	$(PYTEST) -n 3 --dist loadfile --no-loadscope-reorder

# The whole real trace, of which `make test` replays those who pay.
trace: .venv/ready
	WHOLE_TRACE=1 $(PYTEST) tests/e2e/test_replay.py

# Every positive rating of Bitcoin OTC as a vouch, of which `make test` loads the first ones.
trust: .venv/ready
	WHOLE_OTC=1 $(PYTEST) tests/e2e/test_otc.py

check: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST) -q -n 2 --dist loadfile tests/unit

unit: .venv/ready
	$(PYTEST) -q -n 2 --dist loadfile tests/unit

format: .venv/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

vectors: .venv/ready
	$(BIN)/python protocol/vectors/generate.py

# Two hours, of which one is the soak; leaves report.html and report.json in bench/out/.
# `make bench BENCH=--quick` takes two minutes, `make bench BENCH=--results` also writes bench/RESULTS.md.
bench: .venv/ready
	$(BIN)/python -m bench $(BENCH)

# The environment: every package at a locked version with its hash, then this project itself, built by the
# locked backend. The mark at the end is only made when all of it went well.
.venv/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Gesell needs Python 3.11 or newer; say which with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv --clear .venv \
		|| { echo "python3 -m venv failed; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# Needs uv; names no registry, so that every machine uses its own.
lock:
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
		--python-version 3.11 --all-extras --group dev -o requirements.lock pyproject.toml

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
