"""onnxruntime's own graph tools: fusion, 16-bit floats, static quantization."""

from __future__ import annotations

import logging
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from terazi.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from onnx import ModelProto

__all__ = ["optimize", "quantize_static", "to_float16"]

# Families that onnxruntime's transformer optimizer knows, by config.json's model_type.
_FUSION = {
    "bert": "bert",
    "distilbert": "bert",
    "roberta": "bert",
    "xlm-roberta": "bert",
    "vit": "vit",
    "gpt2": "gpt2",
}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the tools' log lines, one per node, away from the user."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(previous)


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
    with _quiet():
        result = optimizer.optimize_model(
            str(path),
            model_type=kind,
            num_heads=heads,
            hidden_size=width,
            optimization_options=options,
            opt_level=0,
        )
    return result.model


def to_float16(path: Path) -> ModelProto:
    """Halve every float; inputs and outputs keep their types."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    from terazi.formats.onnx import load_graph

    with _quiet():
        return convert_float_to_float16(load_graph(path), keep_io_types=True)


def quantize_static(
    path: Path,
    *,
    texts: Sequence[str],
    method: Literal["MinMax", "Entropy", "Percentile"] = "MinMax",
    activation_bits: Literal[8, 16] = 8,
    excluded: Sequence[str] = (),
) -> ModelProto:
    """Write QDQ pairs around matrix products with activation ranges observed on ``texts``.

    Only MatMul, Gemm and Conv are quantized: ranges of everything between them cost quality for no speed.
    """
    from onnxruntime import quantization as tools

    from terazi.formats.onnx import load_graph
    from terazi.runtime.onnxruntime.session import Session

    session = Session(path, threads=1, context=128)

    class Reader(tools.CalibrationDataReader):
        def __init__(self) -> None:
            # One padded length: entropy and percentile calibration cannot stack different ones.
            feeds = session.feeds(texts)
            self._rows = iter(
                [{name: value[i : i + 1] for name, value in feeds.items()} for i in range(len(texts))]
            )

        def get_next(self) -> Any:
            return next(self._rows, None)

    kinds = tools.QuantType
    with tempfile.TemporaryDirectory() as temporary, _quiet():
        output = Path(temporary) / "model.onnx"
        tools.quantize_static(
            str(path),
            str(output),
            Reader(),
            quant_format=tools.QuantFormat.QDQ,
            op_types_to_quantize=["MatMul", "Gemm", "Conv"],
            per_channel=True,
            activation_type=kinds.QUInt16 if activation_bits == 16 else kinds.QUInt8,
            weight_type=kinds.QInt8,
            calibrate_method=tools.CalibrationMethod[method],
            nodes_to_exclude=list(excluded),
            extra_options={"MatMulConstBOnly": True},
        )
        return load_graph(output)
