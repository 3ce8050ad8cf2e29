"""onnxruntime's own graph tools: 16-bit floats and static quantization."""

from __future__ import annotations

import logging
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from onnx import ModelProto

__all__ = ["quantize_static", "to_float16"]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the tools' log lines, one per node, away from the user."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(previous)


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
