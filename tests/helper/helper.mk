# force_swap, the helper that makes room in memory: its build and its tests, for the Makefile at the top.
KERNEL_TABLE ?=

.PHONY: force-swap test-helper test-kernel
force-swap: build/force_swap ## build the helper that makes room in memory (needs g++ alone)

test-helper: .venv/.dev ## force_swap: its table on three builds, races, a minute of fuzz
	@bash tests/helper/build.sh
	$(BIN)/python -m pytest tests/helper -m "not long" $(WORKERS)

test-kernel: .venv/.dev ## force_swap on real kernels in virtual machines (20 minutes)
	KERNEL_TABLE=$(KERNEL_TABLE) $(BIN)/python -m pytest tests/kernel -m kernel

build/force_swap: unglitched_vllm/force_swap.cpp
	@mkdir -p build
	g++ -O2 -std=c++20 -Wall -Wextra -Wconversion -Werror -o $@ $<
