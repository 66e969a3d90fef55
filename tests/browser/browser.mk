# The console in a browser, for the Makefile at the top.

.PHONY: test-browser screenshots
test-browser: .venv/.dev setup ## the console in Chromium, over the fake and the real engine
	CI=true $(BIN)/python -m pytest tests/browser

screenshots: .venv/.dev setup ## take the pictures in docs/screenshots anew
	UPDATE_SCREENSHOTS=1 $(BIN)/python -m pytest tests/browser -k "picture or figures or loading or killed"
