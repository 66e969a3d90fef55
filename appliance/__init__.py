"""Unglitched: a serving appliance that keeps one vLLM engine dependable on one box."""

__version__ = "0.1.0"
