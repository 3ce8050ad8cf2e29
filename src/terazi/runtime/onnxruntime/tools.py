"""onnxruntime's own graph tools: 16-bit floats and static quantization."""

from __future__ import annotations

import io
import logging
import tempfile
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from terazi.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    from onnx import ModelProto

__all__ = ["quantize_static", "to_float16", "typed"]

_QUANTIZED = ("MatMul", "Gemm", "Conv")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the tools log and print, one line per node, away from the user."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(previous)


def to_float16(model: ModelProto) -> ModelProto:
    """Halve every float, in place; inputs and outputs keep their types. Weights must be in the model."""
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    with _quiet():
        halved = convert_float_to_float16(model, keep_io_types=True)
        OnnxModel(halved).topological_sort()  # casts of inputs were added at the end
    return halved


def quantize_static(
    path: Path,
    *,
    feeds: Sequence[Mapping[str, np.ndarray]],
    ranges: Literal["minmax", "entropy", "percentile"] = "minmax",
    activation_bits: Literal[8, 16] = 8,
    excluded: Sequence[str] = (),
    whole: bool = False,
) -> ModelProto:
    """Return the graph at ``path`` with QDQ pairs around matrix products and convolutions.

    Ranges of activations are observed on ``feeds``. Weights are quantized per output channel. Other operators
    stay floats, as ranges of everything in between cost quality for no speed, unless ``whole``: then every
    operator is quantized as onnxruntime does for Qualcomm's NPU, which has no floats. ``excluded`` nodes stay
    as they are. Raises `UsageError` when the feeds do not run or, for entropy and percentile, are not all of
    one shape.
    """
    from onnxruntime import quantization as tools

    from terazi.formats.onnx import inside, load_graph

    class Reader(tools.CalibrationDataReader):
        def __init__(self) -> None:
            self._rows = iter(feeds)

        def get_next(self) -> Any:
            return next(self._rows, None)

    apart = (path.with_name(f"{path.name}.data")).exists()  # over 2 GB
    kinds = tools.QuantType
    activations = kinds.QUInt16 if activation_bits == 16 else kinds.QUInt8
    method = tools.CalibrationMethod[{"minmax": "MinMax"}.get(ranges, ranges.capitalize())]
    if whole:
        from onnxruntime.quantization.execution_providers.qnn import get_qnn_qdq_config

        config = get_qnn_qdq_config(
            str(path),
            Reader(),
            calibrate_method=method,
            activation_type=activations,
            weight_type=kinds.QUInt8,
        )
    else:
        config = tools.StaticQuantConfig(
            Reader(),
            quant_format=tools.QuantFormat.QDQ,
            op_types_to_quantize=list(_QUANTIZED),
            per_channel=True,
            activation_type=activations,
            weight_type=kinds.QInt8,
            calibrate_method=method,
            nodes_to_exclude=list(excluded),
            extra_options={"OpTypesToExcludeOutputQuantization": list(_QUANTIZED)},
        )
    with tempfile.TemporaryDirectory() as temporary, _quiet():
        output = Path(temporary) / "model.onnx"
        try:
            config.use_external_data_format = apart
            tools.quantize(str(path), str(output), config)
        except Exception as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise UsageError(
                f"onnxruntime cannot calibrate the model: {reason}",
                hint="feeds need every input; entropy and percentile need batches of one shape",
            ) from None
        return inside(load_graph(output), output)


def typed(graph: ModelProto) -> ModelProto:
    """Declare, in place, what products read and write as floats: behind fused operators none is inferred."""
    from onnx import TensorProto, helper

    inner = graph.graph
    known = {value.name for value in (*inner.value_info, *inner.input, *inner.output, *inner.initializer)}
    products = (node for node in inner.node if node.op_type in _QUANTIZED)
    names = dict.fromkeys(name for node in products for name in (node.input[0], node.output[0]))
    inner.value_info.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names if name not in known
    )
    return graph
