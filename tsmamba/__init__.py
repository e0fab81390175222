"""Forecasting on selective state space models."""
