# The benchmarks, for the Makefile at the top.

.PHONY: bench-gateway bench-gateway-quick
bench-gateway: .venv/.runtime ## the gateway against nginx, vllm-router and LiteLLM (12 minutes)
	@tests/bench/gateway/peers.sh
	@$(BIN)/python -m tests.bench.gateway --markdown tests/bench/gateway/RESULTS.md \
		--chart tests/bench/gateway/chart.png

bench-gateway-quick: .venv/.runtime ## the same against nginx alone (2 minutes)
	@tests/bench/gateway/peers.sh nginx
	@$(BIN)/python -m tests.bench.gateway --quick

.PHONY: bench-ledger
bench-ledger: .venv/.dev ## CPU of the path guard's ledger, 1,000 to 200,000 tokens (1 minute)
	@mkdir -p build
	@$(BIN)/python -m tests.bench.paths.ledger --json build/bench-ledger.json \
		--markdown tests/bench/paths/LEDGER.md
	@$(BIN)/uv run -q --no-project --with matplotlib python -m tests.bench.paths.chart \
		build/bench-ledger.json tests/bench/paths/ledger.png

.PHONY: bench-speed bench-console
bench-speed: .venv/.dev ## speed of the running appliance, with llama-benchy (URL=…)
	@$(BIN)/appliance bench speed $(URL)

bench-console: .venv/.dev ## what ten watchers of the console cost, and move (8 minutes; REAL=1)
	@$(BIN)/python -m tests.bench.console $(if $(REAL),--real)
	@$(BIN)/python -m tests.bench.console.gateway

.PHONY: newcomer
newcomer: .venv/.dev ## follow the README in a fresh clone, and compare what is printed (7 minutes)
	@$(BIN)/python -m tests.newcomer
