"""Recipes for ONNX graphs, as data."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from terazi.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ONNX_RECIPES", "Method", "OnnxRecipe", "Ranges", "onnx_recipe"]


Ranges = Literal["minmax", "entropy", "percentile"]
"""How the range of an activation follows from what was observed."""


Method = Literal["rtn", "hqq", "gptq"]
"""Rounding to nearest, half-quadratic quantization (both by the weights alone), or GPTQ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxRecipe:
    """How the matrices of a graph are stored.

    ``kind``: ``dynamic`` multiplies in int8 with activations quantized on the fly, ``weights`` stores weights
    in groups, by ``method``, for MatMulNBits, ``static`` writes QDQ pairs from calibration, ``float16``
    halves every float, ``bfloat16`` halves stored weights and computes in float32. ``spared`` is the share of
    matrix weights, the worst by measurement, that get 8-bit groups instead. Embedding tables take
    ``embedding_bits``; ``activation_bits`` and ``ranges`` (how the range of an activation is found) are for
    ``static``.
    """

    name: str
    title: str
    kind: Literal["dynamic", "weights", "static", "float16", "bfloat16"]
    bits: int = 8
    group_size: int = 32
    method: Method = "rtn"
    symmetric: bool = True
    embedding_bits: int = 8
    spared: float = 0.0
    activation_bits: Literal[8, 16] = 8
    ranges: Ranges = "minmax"

    @property
    def needs_data(self) -> bool:
        """Whether activations are observed on calibration data."""
        return self.spared > 0 or self.method == "gptq" or self.kind == "static"


_TABLE = (
    OnnxRecipe(name="float16", title="16-bit floats", kind="float16", bits=16, embedding_bits=16),
    OnnxRecipe(
        name="bfloat16",
        title="16-bit floats with float32's range, widened before use",
        kind="bfloat16",
        bits=16,
        embedding_bits=16,
    ),
    OnnxRecipe(
        name="int8",
        title="8-bit integers, activations on the fly, worst matrices spared",
        kind="dynamic",
        spared=0.2,
    ),
    OnnxRecipe(name="int8-dynamic", title="8-bit integers, activations on the fly", kind="dynamic"),
    OnnxRecipe(name="int8-static", title="8-bit integers, activations calibrated (QDQ)", kind="static"),
    OnnxRecipe(
        name="w8a16",
        title="8-bit weights, 16-bit activations calibrated (QDQ)",
        kind="static",
        activation_bits=16,
    ),
    OnnxRecipe(name="w8", title="8-bit weights in groups of 128", kind="weights", group_size=128),
    OnnxRecipe(
        name="int4",
        title="4-bit weights by GPTQ, worst matrices at 8 bits",
        kind="weights",
        bits=4,
        method="gptq",
        symmetric=False,
        embedding_bits=4,
        spared=0.2,
    ),
    OnnxRecipe(name="w4", title="4-bit weights in groups of 32", kind="weights", bits=4, embedding_bits=4),
    OnnxRecipe(
        name="w2",
        title="2-bit weights by GPTQ in groups of 32 (experimental)",
        kind="weights",
        bits=2,
        method="gptq",
        symmetric=False,
        embedding_bits=4,
        spared=0.2,
    ),
)

ONNX_RECIPES: Mapping[str, OnnxRecipe] = MappingProxyType({recipe.name: recipe for recipe in _TABLE})
"""Every ONNX recipe by name."""


def onnx_recipe(name: str) -> OnnxRecipe:
    """Look a recipe up, ignoring case. Raises `NotFoundError` naming the known ones."""
    found = ONNX_RECIPES.get(name.lower())
    if found is None:
        raise NotFoundError(
            f"no ONNX recipe is called {name!r}", hint=f"known ones: {', '.join(ONNX_RECIPES)}"
        )
    return found
