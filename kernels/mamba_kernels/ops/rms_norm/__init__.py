"""Root mean square normalisation, fused with the residual addition that precedes it."""
