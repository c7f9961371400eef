# `make` or `make help` lists what there is. Every target can be run first: it creates .venv from a lock file when needed.
.DEFAULT_GOAL := help
BIN := .venv/bin
MAKEFLAGS += --no-print-directory

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile

run: ## Run everything on this machine: database, cache, demo publishers, gateway; CHAIN=1 adds a local chain (TOLLWAY_PORT, TOLLWAY_DATA)
	@scripts/bootstrap
	@exec $(BIN)/tollway dev $(if $(CHAIN),--chain)

test: ## Run all tests on a real PostgreSQL and Valkey (ARGS="tests/cli -k drain" selects)
	@scripts/bootstrap dev
	@exec $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

bench: ## Measure calls beside other proxies and the official x402 servers, queries, estimates (docs/benchmarks.md)
	@scripts/bootstrap dev
	@$(BIN)/python -m benchmarks.estimates
	@$(BIN)/python -m benchmarks.sql $(filter --quick,$(ARGS))
	@exec $(BIN)/python -m benchmarks $(ARGS)

faults: ## Kill the gateway at every step and prove that money and delivery agree (slow)
	@scripts/bootstrap dev
	@exec $(BIN)/python -m pytest -m slow -n 2 --dist loadfile $(ARGS)

production: ## Follow docs/operations.md on an empty database, with the wheel alone, on every supported Python that is here
	@scripts/bootstrap dev
	@exec $(BIN)/python -m pytest -m production tests/production $(ARGS)

simulate: ## Move simulated money in every order until something is wrong (SEED=17 repeats one, ARGS="--seeds 1000")
	@scripts/bootstrap dev
	@exec $(BIN)/python -m tests.simulator $(ARGS)

lint: ## Check style, format, types and the dependency rule
	@scripts/bootstrap dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/basedpyright
	@$(BIN)/lint-imports

ci: ## Everything that must hold before a change lands (.ci/run)
	@exec .ci/run

clean: ## Remove caches and build products; keeps .venv and the data in .tollway
	@rm -rf build dist *.egg-info .pytest_cache .ruff_cache .import_linter_cache .hypothesis .schemathesis
	@find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

.PHONY: help run test bench lint ci clean faults production simulate
