"""Reading and checking files, windows, leak-free splits, resumable samplers, atomic writes and provenance."""

from mamba_configs.former_paths import keep_former_paths

keep_former_paths(
    "mamba_data_prep",
    {
        name: f"genomes.{name}"
        for name in ("audit", "dataset", "fasta", "genome", "index", "intervals", "loader", "splits", "windows")
    },
)
