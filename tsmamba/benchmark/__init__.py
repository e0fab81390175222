"""Long-horizon forecasting by the published protocol, and the published rows beside it."""
