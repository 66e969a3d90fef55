"""A stand-in for PyTorch: as much of it as vLLM's setup.py and CMake ask while configuring."""

from types import SimpleNamespace

from torch import utils

__all__ = ["__version__", "utils", "version"]
__version__ = "2.14.0"
version = SimpleNamespace(cuda="13.0", hip=None, xpu=None)
