"""Language models and classifiers for DNA on selective state space models."""
