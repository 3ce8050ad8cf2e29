"""A small synthetic model in memory, and ways to vary it."""

from pathlib import Path

import numpy as np
import pytest

from terazi.formats.gguf.describe import describe
from terazi.model import Model, Tensor


@pytest.fixture
def make_model():
    """Return a function: named float32 arrays, and hyperparameters, to a GGUF model in memory."""

    def make(arrays, *, architecture="llama", heads=4, heads_kv=2, layers=None, **keys):
        blocks = {int(name.split(".")[1]) for name in arrays if name.startswith("blk.")}
        metadata = {
            "general.architecture": architecture,
            f"{architecture}.block_count": layers or len(blocks),
            f"{architecture}.attention.head_count": heads,
            f"{architecture}.attention.head_count_kv": heads_kv,
            **{f"{architecture}.{key}": value for key, value in keys.items()},
        }
        tensors = {
            name: value if isinstance(value, Tensor) else Tensor.from_array(name, value)
            for name, value in arrays.items()
        }
        path = Path("in-memory.gguf")
        config, tokenizer, variant = describe(path, metadata, tensors)
        return Model(
            path=path,
            format="gguf",
            files=(path,),
            name="in-memory",
            config=config,
            tokenizer=tokenizer,
            tensors=tensors,
            metadata=metadata,
            variant=variant,
        )

    return make


@pytest.fixture
def numbers():
    """Return a function: a shape to the same float32 numbers every time."""

    def make(*shape, seed=0):
        return np.random.default_rng(seed).normal(0, 0.02, shape).astype(np.float32)

    return make


@pytest.fixture
def small(make_model, numbers):
    """A llama of two layers with rows of 256 and 512."""
    arrays = {"token_embd.weight": numbers(8, 256), "output_norm.weight": numbers(256)}
    for layer in range(2):
        for name, shape in {
            "attn_norm": (256,),
            "attn_q": (8, 256),
            "attn_k": (4, 256),
            "attn_v": (4, 256),
            "attn_output": (8, 256),
            "ffn_gate": (8, 256),
            "ffn_up": (8, 256),
            "ffn_down": (4, 512),
        }.items():
            arrays[f"blk.{layer}.{name}.weight"] = numbers(*shape, seed=layer)
    return make_model(arrays)
