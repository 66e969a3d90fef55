"""The demo: the same appliance over the real vLLM CPU engine and a tiny MiniMax-M2 checkpoint."""
