"""What setup.py and CMake import from PyTorch's module of this name."""

import os

CUDA_HOME = os.environ["CUDA_HOME"]
ROCM_HOME = None
COMMON_NVCC_FLAGS = ["--expt-relaxed-constexpr"]
