"""The sequence classifier: labelled examples, the network, its training and report, and the k-mers beside it."""
