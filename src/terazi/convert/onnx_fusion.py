"""Checking ONNX graphs and making them smaller: constants folded by onnxruntime, operators fused."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from terazi.errors import FormatError, MissingExtraError

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["FAMILIES", "check", "fold", "optimize"]

_CONTRIB = "com.microsoft"  # where fused operators live
# Families that onnxruntime's transformer optimizer knows, by config.json's model_type.
FAMILIES = {
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
    kind = FAMILIES.get(family, "bert")
    options = FusionOptions(kind)
    options.enable_attention = options.enable_embed_layer_norm = fuse_attention and family in FAMILIES
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


def check(path: Path) -> None:
    """Run the ONNX checker with shape inference. Raises `FormatError` with its first line."""
    try:
        import onnx
    except ImportError:
        raise MissingExtraError("checking ONNX graphs", "onnx") from None
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = next(iter(str(error).strip().splitlines()), "")
        raise FormatError(path, f"the ONNX checker refuses it: {reason}") from None


def fold(path: Path, output: Path) -> None:
    """Let onnxruntime fold constants and drop what does nothing, in standard operators; writes ``output``."""
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("optimizing ONNX graphs", "onnx") from None
    from terazi.formats.onnx import load_graph, write_graph

    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as temporary:
        made = Path(temporary) / "model.onnx"
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(made)
        options.log_severity_level = 3
        for name, value in {"file_name": "weights", "min_size_in_bytes": "1024"}.items():
            options.add_session_config_entry(f"session.optimized_model_external_initializers_{name}", value)
        try:
            onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise FormatError(path, f"onnxruntime cannot load it: {reason}") from None
        write_graph(load_graph(made), output, origin=made)
