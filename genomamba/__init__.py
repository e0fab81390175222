"""Language models and classifiers for DNA on selective state space models."""

from mamba_configs.former_paths import keep_former_paths

keep_former_paths("genomamba", {"model": "language_model.model"})
