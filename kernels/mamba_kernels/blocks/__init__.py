"""Mixers and the residual backbone made of them."""

from mamba_kernels.blocks.attention import AttentionMixer
from mamba_kernels.blocks.backbone import Backbone, BackboneState, Block
from mamba_kernels.blocks.config import BackboneConfig
from mamba_kernels.blocks.hyena import HyenaMixer, ImplicitConvolution
from mamba_kernels.blocks.mamba import MambaMixer, SelectiveSSM
from mamba_kernels.blocks.mamba2 import GatedSSD, Mamba2Mixer
from mamba_kernels.blocks.names import mixer_names
from mamba_kernels.blocks.norm import RMSNorm
from mamba_kernels.blocks.registry import Branch, LayerState, Mixer, Piece, build_mixer, register_mixer
from mamba_kernels.blocks.s4d import DiagonalSSM, S4DMixer
from mamba_kernels.blocks.strands import merge_strands, split_strands
from mamba_kernels.blocks.streaming import StreamPiece

__all__ = [
    "AttentionMixer",
    "Backbone",
    "BackboneConfig",
    "BackboneState",
    "Block",
    "Branch",
    "DiagonalSSM",
    "GatedSSD",
    "HyenaMixer",
    "ImplicitConvolution",
    "LayerState",
    "Mamba2Mixer",
    "MambaMixer",
    "Mixer",
    "Piece",
    "RMSNorm",
    "S4DMixer",
    "SelectiveSSM",
    "StreamPiece",
    "build_mixer",
    "merge_strands",
    "mixer_names",
    "register_mixer",
    "split_strands",
]
