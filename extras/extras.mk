# The extras as single files, and what pruning costs. For the Makefile at the top.

.PHONY: extras bench-checkpoint
extras: ## delete_experts as one file that needs Python 3.11 alone (dist/delete_experts.pyz)
	@$(PYTHON) extras/zipapps.py dist

bench-checkpoint: .venv/.dev ## pruning against cp and sha256sum, 2 to 20 GB (DISK=folder, 58 GB free)
	@mkdir -p build
	@$(BIN)/python -m tests.bench.checkpoint --folder "$(or $(DISK),build)" \
		--markdown tests/bench/checkpoint/RESULTS.md --json build/bench-checkpoint.json
	@$(BIN)/uv run -q --no-project --with matplotlib python -m tests.bench.checkpoint.chart \
		build/bench-checkpoint.json tests/bench/checkpoint/chart.png
