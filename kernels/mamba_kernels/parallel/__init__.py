"""One sequence split over the ranks of a `torch.distributed` group: what the ranks exchange, and operators on it."""

from mamba_kernels.parallel.exchange import RankExchange
from mamba_kernels.parallel.operators import split_causal_conv1d, split_selective_scan

__all__ = ["RankExchange", "split_causal_conv1d", "split_selective_scan"]
