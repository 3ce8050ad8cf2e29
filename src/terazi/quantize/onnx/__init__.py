"""Quantized ONNX graphs: recipes and providers as data, node rewriting, measured sensitivity."""

from terazi.quantize.onnx.apply import quantize_onnx
from terazi.quantize.onnx.providers import PROVIDERS, Provider
from terazi.quantize.onnx.recipes import ONNX_RECIPES, OnnxRecipe

__all__ = ["ONNX_RECIPES", "PROVIDERS", "OnnxRecipe", "Provider", "quantize_onnx"]
