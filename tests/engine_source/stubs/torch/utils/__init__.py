"""Where CMake finds the stand-in's TorchConfig.cmake."""

from pathlib import Path

cmake_prefix_path = str(Path(__file__).resolve().parents[2] / "cmake")
