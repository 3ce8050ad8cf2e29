"""The text part of Qwen 2, 2.5 and 3 with vision: positions in time, height and width."""

from __future__ import annotations

import numpy as np

from terazi.model.arch.decoder import PARAMETERS, TENSORS
from terazi.model.arch.qwen import QUERY_KEY_NORMS, SILU
from terazi.model.arch.qwen35 import sections
from terazi.model.arch.table import Architecture, Settings

__all__ = ["ARCHITECTURES"]


def _deepstack(settings: Settings) -> np.uint32:
    """How many layers take features of the image beside its embedding."""
    vision = settings.get("vision_config")
    layers = vision.get("deepstack_visual_indexes") if isinstance(vision, dict) else None
    return np.uint32(len(layers) if isinstance(layers, list) else 0)


ARCHITECTURES = (
    Architecture(
        name="qwen2vl",
        classes=("Qwen2VLForConditionalGeneration", "Qwen2_5_VLForConditionalGeneration"),
        parameters=PARAMETERS | {"rope.dimension_sections": sections(16, 24, 24)},
        tensors=TENSORS,
        expects=SILU,
    ),
    Architecture(
        name="qwen3vl",
        classes=("Qwen3VLForConditionalGeneration",),
        parameters=PARAMETERS
        | {"rope.dimension_sections": sections(24, 20, 20), "n_deepstack_layers": _deepstack},
        tensors=TENSORS | QUERY_KEY_NORMS,
        expects=SILU,
    ),
)
