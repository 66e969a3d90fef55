# The benchmarks, for the Makefile at the top.

.PHONY: bench-gateway bench-gateway-quick
bench-gateway: .venv/.runtime ## the gateway against nginx, vllm-router and LiteLLM (12 minutes)
	@tests/bench/gateway/peers.sh
	@$(BIN)/python -m tests.bench.gateway --markdown tests/bench/gateway/RESULTS.md \
		--chart tests/bench/gateway/chart.png

bench-gateway-quick: .venv/.runtime ## the same against nginx alone (2 minutes)
	@tests/bench/gateway/peers.sh nginx
	@$(BIN)/python -m tests.bench.gateway --quick
