"""From the records of a FASTA file to windows, class probabilities, and the files that a lab opens."""
