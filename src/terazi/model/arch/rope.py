"""Rotary position settings: where configurations keep them, and what llama.cpp calls them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from terazi.errors import FormatError, UnsupportedError
from terazi.model.arch.table import Reader, Settings, head_size
from terazi.model.model import Model
from terazi.model.tensor import Tensor

__all__ = ["ROPE", "frequencies", "rope", "rope_back", "rope_value"]

# Hugging Face type -> GGUF's `rope.scaling.type`; llama3 becomes per-frequency factors (a tensor).
_TYPES = {"linear": "linear", "yarn": "yarn", "longrope": "longrope", "su": "longrope"}
_PLAIN = {"default", "llama3", "dynamic", "mrope", None}


def rope(settings: Settings, layers: str = "full_attention") -> Mapping[str, Any]:
    """Return the rotary settings of one kind of layers.

    They are ``rope_parameters`` (possibly by kind of layer) since transformers 5, ``rope_scaling`` plus
    ``rope_theta`` at the top before.
    """
    found = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    if not isinstance(found, dict):
        raise FormatError("config.json", f"rope_parameters is {found!r}, not an object")
    found = dict(found.get(layers, {}) if layers in found else found)
    found.setdefault("rope_type", found.get("type"))
    for name in ("rope_theta", "partial_rotary_factor", "original_max_position_embeddings"):
        if found.get(name) is None:
            found[name] = settings.get(name)
    return found


def rope_value(name: str, layers: str = "full_attention", default: float | None = None) -> Reader:
    """Read one rotary setting as float32."""

    def read(settings: Settings) -> np.float32 | None:
        value = rope(settings, layers).get(name)
        value = default if value is None else value
        return None if value is None else np.float32(value)

    return read


def _scaling(settings: Settings) -> str | None:
    kind = rope(settings)["rope_type"]
    if kind not in _TYPES and kind not in _PLAIN:
        raise UnsupportedError(f"rotary scaling {kind!r} has no counterpart in GGUF")
    return _TYPES.get(kind)


def _scaled(name: str, *kinds: str) -> Reader:
    def read(settings: Settings) -> np.float32 | None:
        value = rope(settings).get(name)
        return np.float32(value) if value is not None and _scaling(settings) in kinds else None

    return read


def _original_context(settings: Settings) -> np.uint32 | None:
    value = rope(settings)["original_max_position_embeddings"]
    return np.uint32(value) if value is not None and _scaling(settings) in ("yarn", "longrope") else None


def _dimensions(settings: Settings) -> np.uint32:
    fraction = rope(settings)["partial_rotary_factor"]
    return np.uint32(int(head_size(settings)) * (1.0 if fraction is None else fraction))


ROPE: Mapping[str, Reader] = {
    "rope.dimension_count": _dimensions,
    "rope.freq_base": rope_value("rope_theta"),
    "rope.scaling.type": _scaling,
    "rope.scaling.factor": _scaled("factor", "linear", "yarn"),
    "rope.scaling.original_context_length": _original_context,
    "rope.scaling.attn_factor": _scaled("attention_factor", "longrope"),
    "rope.scaling.yarn_attn_factor": _scaled("attention_factor", "yarn"),
    "rope.scaling.yarn_beta_fast": _scaled("beta_fast", "yarn"),
    "rope.scaling.yarn_beta_slow": _scaled("beta_slow", "yarn"),
}
"""The ``rope.*`` keys of a decoder with one kind of rotary layers."""


def frequencies(settings: Settings) -> Iterable[Tensor]:
    """Yield ``rope_freqs.weight``: what Llama 3's scaling divides each frequency by. Nothing otherwise.

    Source: ``transformers.modeling_rope_utils._compute_llama3_parameters``.
    """
    scaling = rope(settings)
    if scaling["rope_type"] != "llama3":
        return
    size = int(_dimensions(settings))
    base = float(scaling.get("rope_theta") or 10000.0)
    factor, low, high = (
        float(scaling.get(name, default))
        for name, default in (("factor", 8.0), ("low_freq_factor", 1.0), ("high_freq_factor", 4.0))
    )
    context = float(scaling["original_max_position_embeddings"] or 8192)
    if min(base, factor, low, context) <= 0 or low == high:
        raise FormatError("config.json", "the llama3 rotary scaling has impossible values")
    waves = 2 * math.pi * base ** (np.arange(0, size, 2, dtype=np.float32) / size)
    smooth = (context / waves - low) / (high - low)
    middle = 1 / ((1 - smooth) / factor + smooth)
    factors = np.where(waves < context / high, 1.0, np.where(waves > context / low, factor, middle))
    yield Tensor.from_array("rope_freqs.weight", factors.astype(np.float32))


def rope_back(model: Model, name: str) -> dict[str, Any]:
    """Return ``rope_parameters`` for the ``<name>.rope.*`` keys and the factor tensors of a GGUF model."""
    keys = {
        key.removeprefix(f"{name}.rope."): value
        for key, value in model.metadata.items()
        if key.startswith(f"{name}.rope.")
    }
    if "freq_base" not in keys:
        return {}
    found: dict[str, Any] = {"rope_theta": float(keys["freq_base"]), "rope_type": "default"}
    kind = keys.get("scaling.type")
    if kind in ("linear", "yarn"):
        found |= {"rope_type": kind, "factor": float(keys.get("scaling.factor", 1.0))}
    if kind in ("yarn", "longrope"):
        found["original_max_position_embeddings"] = int(keys["scaling.original_context_length"])
    size, whole = keys.get("dimension_count"), model.config.key_length
    part = int(size) / whole if size is not None and whole else 1.0
    if part != 1.0:
        found["partial_rotary_factor"] = part
    long, short = (model.tensors.get(f"rope_factors_{which}.weight") for which in ("long", "short"))
    fixed = model.tensors.get("rope_freqs.weight")
    if fixed is not None:  # Llama 3: the same factors whatever the length
        long = short = fixed
        found |= {"attention_factor": 1.0, "original_max_position_embeddings": model.config.context_length}
    if long is not None and short is not None:
        found |= {"rope_type": "longrope", "long_factor": long.rows()[0].tolist()}
        found |= {"short_factor": short.rows()[0].tolist()}
    if found["rope_type"] == "longrope" and "attention_factor" not in found:
        found["attention_factor"] = float(keys.get("scaling.attn_factor", 1.0))
    if "freq_base_swa" in keys:
        window = {"rope_type": "default", "rope_theta": float(keys["freq_base_swa"])}
        return {"rope_parameters": {"full_attention": found, "sliding_attention": window}}
    # Some families read these at the top.
    top = {"partial_rotary_factor": part, "rotary_pct": part, "rope_theta": found["rope_theta"]}
    if "original_max_position_embeddings" in found:
        top["original_max_position_embeddings"] = found["original_max_position_embeddings"]
    return {"rope_parameters": found} | top
