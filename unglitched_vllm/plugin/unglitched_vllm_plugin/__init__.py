"""MiniMax's sigmoid routing for vLLM's CPU engine, as a vLLM general plug-in."""

from .routing import PluginMismatch, register, route_sigmoid

__all__ = ["PluginMismatch", "register", "route_sigmoid"]
