"""Operators under mamba-ssm's names."""
