"""Selective state space operators and blocks, with a reference, CPU and GPU implementation behind one function."""
