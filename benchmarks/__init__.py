"""Measurements of this project beside its peers: `python -m benchmarks` runs all, `python -m benchmarks.NAME` one."""
