"""What may be classified: genomes of species, sites in a genome, and sequences with labels."""
