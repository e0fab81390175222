"""Language models and classifiers for DNA on selective state space models.

`load` reads a model from a run or a bundle; `classify` and `score` ask it; `encode` turns letters into token ids;
`export_onnx` writes a model for onnxruntime.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mamba_configs.former_paths import keep_former_paths

if TYPE_CHECKING:
    from genomamba.classifier.network import SequenceClassifier
    from genomamba.language_model.model import GenomeLM
    from genomamba.onnx_file import export_onnx
    from genomamba.public import classify, load, score
    from genomamba.tokens import encode

__all__ = ["GenomeLM", "SequenceClassifier", "classify", "encode", "export_onnx", "load", "score"]

_WHERE = {
    "GenomeLM": "genomamba.language_model.model",
    "SequenceClassifier": "genomamba.classifier.network",
    "classify": "genomamba.public",
    "encode": "genomamba.tokens",
    "export_onnx": "genomamba.onnx_file",
    "load": "genomamba.public",
    "score": "genomamba.public",
}


def __getattr__(name: str) -> Any:
    """Imports a name when it is first asked for: the command line's help needs no torch."""
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'genomamba' has no attribute {name!r}")


keep_former_paths("genomamba", {"model": "language_model.model"})
