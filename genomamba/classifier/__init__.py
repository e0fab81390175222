"""The sequence classifier: labelled examples, the network, its training, its report, and the k-mer baseline beside it."""
