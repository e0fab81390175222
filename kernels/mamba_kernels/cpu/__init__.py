"""What the CPU kernels share: vectors and elementwise functions for Numba, its threads, and the allocator."""
