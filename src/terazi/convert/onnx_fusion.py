"""Operator fusion in ONNX graphs, by onnxruntime's transformer optimizer."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from terazi.errors import MissingExtraError

if TYPE_CHECKING:
    from pathlib import Path

    from onnx import ModelProto

__all__ = ["optimize"]

_CONTRIB = "com.microsoft"  # where fused operators live
# Families that onnxruntime's transformer optimizer knows, by config.json's model_type.
_FUSION = {
    "bert": "bert",
    "distilbert": "bert",
    "roberta": "bert",
    "xlm-roberta": "bert",
    "vit": "vit",
    "gpt2": "gpt2",
}


def optimize(
    path: Path, *, family: str, heads: int = 0, width: int = 0, fuse_attention: bool = False
) -> ModelProto:
    """Fuse normalisation, activation and bias operators, and attention where asked.

    ``fuse_attention`` merges query, key and value into one operator, which block-wise quantization cannot
    enter: leave it off before quantizing. Other families than the optimizer knows get constant folding only.
    """
    try:
        from onnxruntime.transformers import optimizer
        from onnxruntime.transformers.fusion_options import FusionOptions
    except ImportError:
        raise MissingExtraError("optimizing ONNX graphs", "onnx") from None
    kind = _FUSION.get(family, "bert")
    options = FusionOptions(kind)
    options.enable_attention = options.enable_embed_layer_norm = fuse_attention and family in _FUSION
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)  # one line per node
    try:
        result = optimizer.optimize_model(
            str(path),
            model_type=kind,
            num_heads=heads,
            hidden_size=width,
            optimization_options=options,
            opt_level=0,
        )
    finally:
        logging.disable(previous)
    if all(entry.domain != _CONTRIB for entry in result.model.opset_import):
        result.model.opset_import.add(domain=_CONTRIB, version=1)
    return result.model
