"""Execution providers of onnxruntime, as data: which quantized operators and types each of them runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from terazi.errors import NotFoundError, UnsupportedError
from terazi.quantize.onnx.recipes import ONNX_RECIPES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from terazi.quantize.onnx.recipes import OnnxRecipe

__all__ = ["PROVIDERS", "Provider", "fitted", "legal", "provider"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """What one provider runs itself, without falling back to the processor.

    ``blocks`` are the bits of MatMulNBits, ``fractional`` whether its zero points may be floats, ``tables``
    whether it has GatherBlockQuantized, ``dynamic`` whether it has DynamicQuantizeMatMul, ``static`` the bits
    of activations in QDQ graphs and ``whole`` that every operator must be in integers. ``bfloat16`` says that
    Cast reads it.
    """

    name: str
    title: str
    execution_provider: str
    blocks: tuple[int, ...] = ()
    fractional: bool = False
    tables: bool = False
    dynamic: bool = False
    static: tuple[int, ...] = ()
    whole: bool = False
    float16: bool = False
    bfloat16: bool = False
    note: str = ""


# From onnxruntime's docs/OperatorKernels.md and its pages on each provider. Only `cpu` has run here.
_TABLE = (
    Provider(
        name="cpu",
        title="processors",
        execution_provider="CPUExecutionProvider",
        blocks=(2, 4, 8),
        fractional=True,
        tables=True,
        dynamic=True,
        static=(8, 16),
        float16=True,
        bfloat16=True,
        note="16-bit floats save space and no time",
    ),
    Provider(
        name="cuda",
        title="NVIDIA GPUs",
        execution_provider="CUDAExecutionProvider",
        blocks=(4, 8),
        tables=True,
        float16=True,
        bfloat16=True,
    ),
    Provider(
        name="directml",
        title="GPUs on Windows",
        execution_provider="DmlExecutionProvider",
        blocks=(4,),
        static=(8,),
        float16=True,
    ),
    Provider(
        name="openvino",
        title="Intel processors, GPUs and NPUs",
        execution_provider="OpenVINOExecutionProvider",
        static=(8,),
        float16=True,
    ),
    Provider(
        name="qnn",
        title="Qualcomm NPUs",
        execution_provider="QNNExecutionProvider",
        static=(8, 16),
        whole=True,
        note="fix the shapes of inputs before use",
    ),
    Provider(
        name="coreml",
        title="Apple's Neural Engine and GPUs",
        execution_provider="CoreMLExecutionProvider",
        float16=True,
    ),
    Provider(
        name="webgpu",
        title="GPUs in browsers",
        execution_provider="WebGpuExecutionProvider",
        blocks=(4, 8),
        tables=True,
        float16=True,
    ),
)

PROVIDERS: Mapping[str, Provider] = MappingProxyType({entry.name: entry for entry in _TABLE})
"""Every provider by name."""


def provider(name: str) -> Provider:
    """Look a provider up, ignoring case. Raises `NotFoundError` naming the known ones."""
    found = PROVIDERS.get(name.lower())
    if found is None:
        raise NotFoundError(f"no provider is called {name!r}", hint=f"known ones: {', '.join(PROVIDERS)}")
    return found


def legal(provider: Provider) -> list[str]:
    """Return the names of the recipes that a provider runs."""
    return [entry.name for entry in ONNX_RECIPES.values() if _runs(entry, provider)]


def fitted(recipe: OnnxRecipe, provider: Provider) -> OnnxRecipe:
    """Return ``recipe`` without what ``provider`` lacks. Raises `UnsupportedError` when nothing is left."""
    if not _runs(recipe, provider):
        raise UnsupportedError(
            f"{provider.name} does not run {recipe.name}", hint=f"it runs {', '.join(legal(provider))}"
        )
    if recipe.method != "rtn" and recipe.kind != "weights":
        raise UnsupportedError(
            f"{recipe.name} knows no {recipe.method}", hint="methods are for w2, w4, w8, int4"
        )
    if recipe.method == "hqq" and (recipe.bits == 8 or not provider.fractional):
        raise UnsupportedError(
            f"hqq is for weights of 4 and 2 bits on processors, not for {recipe.name} on {provider.name}",
            hint="use gptq or rtn",
        )
    return replace(
        recipe,
        spared=recipe.spared if 8 in provider.blocks else 0.0,
        embedding_bits=recipe.embedding_bits if provider.tables else max(recipe.embedding_bits, 8),
    )


def _runs(recipe: OnnxRecipe, provider: Provider) -> bool:
    return {
        "dynamic": provider.dynamic,
        "weights": recipe.bits in provider.blocks,
        "static": recipe.activation_bits in provider.static,
        "float16": provider.float16,
        "bfloat16": provider.bfloat16,
    }[recipe.kind]
