"""How many layers of a model go to GPUs: those that fit in free memory, placed as llama.cpp places them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from terazi.model.memory import kv_cache_layers, memory_needed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from terazi.model.model import Model

__all__ = ["Offload", "layers_that_fit", "plan_offload"]

# Bytes that stay free on each GPU, as with llama.cpp's own fitting (common_params.fit_params_target).
_MARGIN = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Offload:
    """``layers`` of ``total`` on GPUs, taking about ``needed`` bytes there.

    ``whole`` is how much must be free on one GPU for all of them.
    Counted as llama.cpp does: the output layer is one, and the first to go.
    """

    layers: int
    total: int
    needed: int
    whole: int


def plan_offload(model: Model, context: int, free: Sequence[int], *, margin: int = _MARGIN) -> Offload:
    """Plan the layers of a GGUF model for GPUs with ``free`` bytes each, at ``context`` tokens in all.

    An estimate: weights and KV cache are exact (`kv_cache_layers`), the buffers of a batch are those of
    `memory_needed` on every GPU. Of several GPUs each may waste up to one layer.
    """
    blocks = model.config.block_count
    weights = [0.0] * blocks
    output = 0.0
    for name, tensor in model.tensors.items():
        kind, _, rest = name.partition(".")
        number = rest.partition(".")[0]
        if kind == "blk" and number.isdigit() and int(number) < blocks:
            weights[int(number)] += tensor.stored_bytes
        elif kind != "token_embd" or "output.weight" not in model.tensors:
            output += tensor.stored_bytes  # an embedding that is the output as well is there twice
    cache = kv_cache_layers(model.config, context)
    layers = [one + other for one, other in zip(weights, cache, strict=True)]
    buffers = memory_needed(0, model.config, context).compute
    rooms = [room for one in free if (room := one - margin - buffers) > 0]
    waste = max(layers, default=0) * max(len(rooms) - 1, 0)
    fitting = layers_that_fit(layers, output, sum(rooms) - waste)
    on_gpu = _taken(layers, output, fitting)
    return Offload(
        layers=fitting,
        total=blocks + 1,
        needed=int(on_gpu + (buffers * len(rooms) if fitting else 0)),
        whole=int(_taken(layers, output, blocks + 1) + buffers) + margin,
    )


def layers_that_fit(layers: Sequence[float], output: float, room: float) -> int:
    """Return how many layers fit into ``room`` bytes: the output layer, then the others from the last on."""
    count = 0
    while count <= len(layers) and _taken(layers, output, count + 1) <= room:
        count += 1
    return count


def _taken(layers: Sequence[float], output: float, count: int) -> float:
    return (output + sum(layers[len(layers) - count + 1 :])) if count else 0.0
