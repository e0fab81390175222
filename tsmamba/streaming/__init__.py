"""Forecasting row by row from a running state."""

from tsmamba.streaming.stream import Stream

__all__ = ["Stream"]
