"""A forecaster that has already learnt: a Mamba trained once on synthetic series, for series it has never seen."""
