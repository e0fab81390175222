"""Generation, and weights in files and on the hub, under mamba-ssm's names."""
