"""What the GPU kernels share: their mathematics in Triton, and how they are launched."""
