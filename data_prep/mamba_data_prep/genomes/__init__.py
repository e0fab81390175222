"""Reading genomes: FASTA files, an indexed base cache, intervals and annotation, windows, leak-free splits and samplers."""
