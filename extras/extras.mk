# The extras for people without the clone, and what they are measured by. For the Makefile at the top.

.PHONY: extras bench-checkpoint
extras: ## delete_experts as one file that needs Python 3.11 alone (dist/delete_experts.pyz)
	@$(PYTHON) extras/zipapps.py dist

bench-checkpoint: ## pruning against cp and sha256sum, 5 and 20 GB (DISK=folder: 45 GB free)
	@$(BIN)/python -m tests.bench.checkpoint --folder "$(or $(DISK),build)" \
		--markdown tests/bench/checkpoint/RESULTS.md --chart tests/bench/checkpoint/chart.png
