"""Language models under mamba-ssm's names."""
