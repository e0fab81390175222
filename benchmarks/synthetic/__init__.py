"""The Mamba paper's synthetic tasks on one backbone with each mixer: selective copying and induction heads."""
