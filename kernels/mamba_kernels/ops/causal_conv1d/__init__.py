"""Depthwise causal convolution over (batch, length, channels), fused with its bias and activation."""
