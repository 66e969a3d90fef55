"""force_swap on real kernels: throwaway virtual machines (``make test-kernel``)."""
