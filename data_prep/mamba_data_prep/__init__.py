"""Reading and checking files, windows, leak-free splits, resumable samplers, atomic writes and provenance."""
