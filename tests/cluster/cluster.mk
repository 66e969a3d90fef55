# Two boxes as one, on one machine: two network namespaces, a cable between them, the real engine.

.PHONY: test-cluster
test-cluster: .venv/.dev setup ## break two boxes and their cable in every known way (needs root)
	FAULT_TABLE=$(FAULT_TABLE) $(BIN)/python -m pytest tests/cluster
