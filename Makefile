# Two commands on a fresh machine (python3 with venv, make and git): `make serve` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PORT ?= 8000
HOST ?= 127.0.0.1
# The locks are complete: pip takes what they say and resolves nothing, so no later release can break an installation.
INSTALL := $(BIN)/python -m pip --disable-pip-version-check --quiet install --no-deps

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev serve cluster demo test test-slow lint type format openapi settings lock browser docker bench audit sbom clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/serve.stamp: requirements/serve.lock pyproject.toml client/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) --require-hashes -r requirements/serve.lock
	$(INSTALL) --no-build-isolation -e client -e .
	touch $@

$(VENV)/dev.stamp: requirements/dev.lock $(VENV)/serve.stamp
	$(INSTALL) --require-hashes -r requirements/dev.lock
	touch $@

setup: $(VENV)/serve.stamp ## Install what serving needs into .venv (several GB: torch)

setup-dev: $(VENV)/dev.stamp ## Install what tests and training need as well

serve: setup ## Serve the API on HOST:PORT with the shipped weights
	$(BIN)/cdc serve --host $(HOST) --port $(PORT)

cluster: setup ## Run two APIs, two workers, a Redis and a proxy on port 8080, without containers (needs redis-server)
	$(BIN)/python deploy/cluster.py --port 8080

demo: setup ## Round-trip one photograph: bpp, PSNR, and where the pictures are
	$(BIN)/cdc demo

test: setup-dev ## Run the fast tests, a process for each core
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

test-slow: setup-dev ## Run the tests that `make test` leaves out, but those for a GPU; brings the programs they run
	$(BIN)/python -m tests.programs
	$(BIN)/python -m pytest -m "slow or redis or browser"

lint: setup-dev ## Check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: setup-dev ## Check types
	$(BIN)/mypy

format: setup-dev ## Rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

openapi: setup-dev ## Write openapi/openapi.json
	$(BIN)/python -m service.api.openapi

settings: setup-dev ## Write docs/settings.md
	$(BIN)/python -m service.settings_page

lock: ## Renew the lock files (needs uv)
	requirements/compile

browser: ## Build the scripts that let the page decode in the browser (needs node 18 and npm)
	cd client/js && npm ci --no-audit --no-fund && npm run --silent bundle -- ../../service/playground/browser

docker: ## Print the commands that build the images; docs/operations.md says more
	@for name in api worker-cpu worker-cuda; do \
	  echo "docker build -f docker/$$name.Dockerfile -t cdc-$$name:0.1.0 --build-arg REVISION=$$(git rev-parse HEAD) ."; done

bench: setup-dev ## Measure anew what takes minutes, and write docs/benchmarks.md (CDC_SHARED names the folder with data/kodak/)
	for name in blocks code_length margin parts hostile small_encodes; do \
	  $(BIN)/python -m benchmarks.$$name --json benchmarks/results/$$name.json || exit 1; done
	$(BIN)/python -m benchmarks.stages --threads 2 --json benchmarks/results/stages.json
	for type in float32 bfloat16; do \
	  $(BIN)/python -m benchmarks.step_speed --precision $$type --json benchmarks/results/step_speed_$$type.json || exit 1; done
	$(BIN)/python -m benchmarks.memory --megapixels 2 6 12 --precision float32 --json benchmarks/results/memory.json
	$(BIN)/python -m benchmarks.engine --quick --json benchmarks/results/engine.json
	$(BIN)/python -m benchmarks.document

audit: setup-dev ## Look the locked packages up in the databases of known vulnerabilities (needs the network)
	$(BIN)/pip-audit --disable-pip --require-hashes -r requirements/serve.lock
	$(BIN)/pip-audit --disable-pip --require-hashes -r requirements/dev.lock

sbom: setup-dev ## Write out/sbom.json, the bill of materials of what serves (CycloneDX)
	mkdir -p out
	$(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --of JSON -o out/sbom.json requirements/serve.lock

clean: ## Remove the environment and everything that was generated
	rm -rf $(VENV) out dist .mypy_cache .ruff_cache
