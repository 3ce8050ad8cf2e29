"""Block encodings: float32 rows to stored bytes and back, one module per family of formats."""

from terazi.codecs.gguf import dequantize_rows, quantize_rows, validate_rows

__all__ = ["dequantize_rows", "quantize_rows", "validate_rows"]
