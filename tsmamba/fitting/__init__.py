"""Fitting a network to a panel of series, and the fitted model that forecasts and is saved."""
