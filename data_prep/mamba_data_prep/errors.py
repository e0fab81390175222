"""Errors that are addressed to people, under the name by which every room knows them; see `mamba_configs.errors`."""

from mamba_configs.errors import Interrupted, UserError, addressed

__all__ = ["Interrupted", "UserError", "addressed"]
