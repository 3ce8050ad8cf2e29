"""Quantized ONNX graphs: recipes as data, node rewriting, measured sensitivity."""

from terazi.quantize.onnx.apply import quantize_onnx
from terazi.quantize.onnx.recipes import ONNX_RECIPES, OnnxRecipe

__all__ = ["ONNX_RECIPES", "OnnxRecipe", "quantize_onnx"]
