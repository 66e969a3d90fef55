# The extras as single files, and what they cost. For the Makefile at the top.

.PHONY: extras bench-checkpoint bench-quantize
extras: ## delete_experts and quantize_attention as one file each (dist/*.pyz)
	@$(PYTHON) extras/zipapps.py dist

bench-checkpoint: .venv/.dev ## pruning against cp and sha256sum, 2 to 20 GB (DISK=folder, 58 GB free)
	@mkdir -p build
	@$(BIN)/python -m tests.bench.checkpoint --folder "$(or $(DISK),build)" \
		--markdown tests/bench/checkpoint/RESULTS.md --json build/bench-checkpoint.json
	@$(BIN)/uv run -q --no-project --with matplotlib python -m tests.bench.checkpoint.chart \
		build/bench-checkpoint.json tests/bench/checkpoint/chart.png

bench-quantize: .venv/.dev ## quantising against cp, 7 to 22 GB (DISK=folder, 44 GB free)
	@mkdir -p build
	@$(BIN)/python -m tests.bench.quantize --folder "$(or $(DISK),build)" \
		--markdown tests/bench/quantize/RESULTS.md --json build/bench-quantize.json
	@$(BIN)/uv run -q --no-project --with matplotlib python -m tests.bench.quantize.chart \
		build/bench-quantize.json tests/bench/quantize/chart.png
