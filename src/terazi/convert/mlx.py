"""Checkpoints as MLX directories that mlx-lm, mlx-embeddings and MLX Swift load: names, packed weights."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from terazi.codecs.mlx import MODES, checked, encode
from terazi.errors import UnsupportedError, UsageError
from terazi.model import Artifact, Tensor
from terazi.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from terazi.model import Model

__all__ = ["FAMILIES", "RECIPES", "convert"]

# config.json's model_type of families whose module in mlx-lm (for encoders in mlx-embeddings) takes Hugging
# Face's tensors under their own names.
FAMILIES = (
    "bert",
    "cohere",
    "gemma",
    "gemma2",
    "gemma3_text",
    "granite",
    "llama",
    "mistral",
    "olmo2",
    "phi3",
    "qwen2",
    "qwen3",
    "smollm3",
    "starcoder2",
)
# Mixed recipe -> (low bits, high bits), as mlx-lm's `mixed_quant_predicate_builder` has them.
RECIPES = {"mixed_2_6": (2, 6), "mixed_3_4": (3, 4), "mixed_3_6": (3, 6), "mixed_4_6": (4, 6)}
_DTYPES = {"F32": np.float32, "F16": np.float16}
_LAYER = re.compile(r"\.(\d+)\.")
# What MLX computes itself or embeddings do not need, and small tables that stay floats.
_LEFT_OUT = re.compile(r"rotary_emb\.inv_freq$|^embeddings\.position_ids$|^cls\.")
_FLOATS = re.compile(r"\.(position|token_type)_embeddings\.weight$")


@dataclass(frozen=True, slots=True)
class _Layout:
    """How one layer is encoded."""

    mode: str
    bits: int
    group_size: int


def convert(  # noqa: PLR0913
    model: Model,
    output: Path | str,
    *,
    bits: int | None = None,
    group_size: int | None = None,
    mode: str = "affine",
    recipe: str | None = None,
    type: str | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> Artifact:
    """Write a Hugging Face, GGUF or MLX model as a quantized MLX directory.

    ``mode`` is a key of `terazi.codecs.mlx.MODES`; ``recipe`` one of `RECIPES` mixes two widths by layer.
    Scales and what stays unquantized are stored as ``type``, F16 unless given (F32 costs up to a bit per
    weight). Layers whose rows are no whole number of groups stay floats. Raises `UnsupportedError` for other
    families than `FAMILIES`, `UsageError` for what MLX does not know.
    """
    from terazi.convert.card import model_papers
    from terazi.convert.huggingface import companions, to_huggingface
    from terazi.formats.huggingface import writer

    source = model if model.format == "huggingface" else to_huggingface(model)
    family = str(source.metadata.get("model_type"))
    if family not in FAMILIES:
        raise UnsupportedError(
            f"{model.path}: no MLX layout for {family!r} models", hint=f"known: {', '.join(FAMILIES)}"
        )
    kind = (type or "F16").upper()
    if kind not in _DTYPES:
        raise UsageError(f"cannot store MLX scales as {kind}", hint="choose F16 or F32")
    layout_of = _chooser(source, bits, group_size, mode, recipe)
    tensors, layouts = _encoded(source, layout_of, kind)
    settings = _settings(layouts, mode, bits, group_size)
    config = {**source.metadata, "quantization": settings, "quantization_config": settings}
    label = recipe or f"{mode}-{settings['bits']}bit-g{settings['group_size']}"
    papers = model_papers(model, format="mlx", label=label, output=Path(output))
    texts = papers | companions(model) | {"config.json": json.dumps(config, indent=4, sort_keys=True)}
    files = writer.write(output, tensors, texts, force=force, progress=progress)
    return Artifact.of_files(files, format="mlx", label=label, license=model.license)


def _chooser(
    model: Model, bits: int | None, group_size: int | None, mode: str, recipe: str | None
) -> Callable[[str, int], _Layout | None]:
    """Return (tensor name, columns) -> layout, or None where the rows do not fit the groups."""
    if recipe is None:
        chosen, group = checked(mode, bits, group_size, group_size or MODES[mode].group_sizes[0])
        widths = (chosen, chosen)
    elif recipe not in RECIPES or mode != "affine" or bits is not None:
        raise UsageError(
            f"no MLX recipe {recipe!r} in {mode}", hint=f"choose {', '.join(RECIPES)} without --bits"
        )
    else:
        widths = RECIPES[recipe]
        _, group = checked("affine", 4, group_size, group_size or 64)
    layers = model.config.block_count

    def choose(name: str, columns: int) -> _Layout | None:
        if columns % group or _FLOATS.search(name):
            return None
        return _Layout(mode, widths[_important(name, layers)], group)

    return choose


def _important(name: str, layers: int) -> bool:
    """Whether a mixed recipe gives this tensor the more bits; llama.cpp's rule for its _M presets."""
    if "lm_head" in name:
        return True
    found = _LAYER.search(name)
    layer = int(found[1]) if found else 0
    more = layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2
    return more and ("v_proj" in name or "down_proj" in name)


def _encoded(
    model: Model, layout_of: Callable[[str, int], _Layout | None], kind: str
) -> tuple[list[Tensor], dict[str, _Layout | None]]:
    """Return what is written, encoded when it is read, and the layout of every matrix by layer name."""
    tensors: list[Tensor] = []
    layouts: dict[str, _Layout | None] = {}
    tied = bool(model.metadata.get("tie_word_embeddings"))
    if model.metadata["model_type"] == "bert" and "pooler.dense.weight" not in model.tensors:
        tensors.extend(_no_pooler(model.config.embedding_length, kind))
    for tensor in model.tensors.values():
        if _LEFT_OUT.search(tensor.name) or (tied and tensor.name == "lm_head.weight"):
            continue
        layer, _, part = tensor.name.rpartition(".")
        layout = None
        if part == "weight" and len(tensor.shape) == 2:
            layout = layouts[layer] = layout_of(tensor.name, tensor.columns)
        if layout is None:
            tensors.append(_plain(tensor, kind))
        else:
            tensors.extend(_parts(tensor, layer, layout, kind))
    return tensors, layouts


def _no_pooler(width: int, kind: str) -> Iterator[Tensor]:
    """Yield zeros for BERT's pooler, which embeddings do not use but mlx-embeddings wants to see."""
    for name, shape in (("weight", (width, width)), ("bias", (width,))):

        def read(start: int, stop: int, columns: int = shape[-1]) -> np.ndarray:
            return np.zeros((stop - start, columns), _DTYPES[kind]).view(np.uint8)

        yield Tensor(name=f"pooler.dense.{name}", shape=shape, type=kind, read=read)


def _plain(tensor: Tensor, kind: str) -> Tensor:
    def read(start: int, stop: int) -> np.ndarray:
        return np.ascontiguousarray(tensor.rows(start, stop).astype(_DTYPES[kind])).view(np.uint8)

    return Tensor(name=tensor.name, shape=tensor.shape, type=kind, read=read)


def _parts(tensor: Tensor, layer: str, layout: _Layout, kind: str) -> Iterator[Tensor]:
    """Yield ``weight``, ``scales`` and ``biases``, which share one encoding of the rows last asked for."""

    @lru_cache(maxsize=1)
    def encoded(start: int, stop: int) -> Mapping[str, np.ndarray]:
        rows = tensor.rows(start, stop).astype(_DTYPES[kind])
        return encode(rows, layout.mode, bits=layout.bits, group_size=layout.group_size)

    rows, groups = tensor.shape[0], tensor.columns // layout.group_size
    shapes = {"weight": ((rows, tensor.columns * layout.bits // 32), "U32")}
    shapes["scales"] = ((rows, groups), kind if layout.mode == "affine" else "U8")
    if layout.mode == "affine":
        shapes["biases"] = ((rows, groups), kind)
    last = list(shapes)[-1]
    for part, (shape, type) in shapes.items():

        def read(start: int, stop: int, part: str = part) -> np.ndarray:
            values = np.ascontiguousarray(encoded(start, stop)[part]).view(np.uint8)
            if part == last:
                encoded.cache_clear()
            return values

        yield Tensor(name=f"{layer}.{part}", shape=shape, type=type, read=read)


def _settings(
    layouts: Mapping[str, _Layout | None], mode: str, bits: int | None, group_size: int | None
) -> dict[str, Any]:
    """Return config.json's ``quantization``: the commonest layout, and every layer that differs."""
    used = [layout for layout in layouts.values() if layout is not None]
    if not used:
        raise UnsupportedError("no layer has rows that groups divide", hint="choose a smaller --group-size")
    common = max(dict.fromkeys(used), key=used.count)
    settings: dict[str, Any] = {"group_size": common.group_size, "bits": common.bits, "mode": mode}
    for layer, layout in layouts.items():
        if layout is not None and layout != common:
            settings[layer] = {"group_size": layout.group_size, "bits": layout.bits, "mode": layout.mode}
    return settings
