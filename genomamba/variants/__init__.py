"""Variants under a language model: both alleles scored in the genome around them."""
