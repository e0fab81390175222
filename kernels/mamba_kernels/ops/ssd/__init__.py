"""The state space dual (SSD) of Mamba-2: a scan whose decay is one number a head, as products of small matrices."""
