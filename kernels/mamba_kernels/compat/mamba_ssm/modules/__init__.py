"""Mixers and blocks under mamba-ssm's names."""
