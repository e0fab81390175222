"""Reading genomes: FASTA files, an indexed base cache, intervals, annotation, windows, splits and samplers."""
