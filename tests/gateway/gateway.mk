# What clients meet at the gateway, for the Makefile at the top.

.PHONY: test-gateway accept-kilo
test-gateway: .venv/.dev ## the gateway under real clients, fuzz, bad keys, a minute of everyday life
	$(BIN)/python -m pytest tests/accept tests/gateway --ignore tests/accept/kilo -m "not long"

accept-kilo: .venv/.dev ## Kilo Code's own command line against the appliance (LONG=1: 20 minutes more)
	KILO_TABLE=tests/accept/kilo/RESULTS.md \
	$(BIN)/python -m pytest tests/accept/kilo -m "$(if $(LONG),,not long)"
