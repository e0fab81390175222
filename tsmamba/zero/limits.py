"""How much the pre-trained forecaster reads and gives."""

FEWEST_ROWS, MOST_ROWS = 8, 2048
"""Rows of the shortest and of the longest history that it reads; of a longer one it reads the latest."""

AT_ONCE = 64
"""Rows that are forecast at once; further ones continue from these."""
