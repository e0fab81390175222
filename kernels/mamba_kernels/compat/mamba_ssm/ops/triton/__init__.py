"""Operators, Triton or not, under mamba-ssm's names."""
