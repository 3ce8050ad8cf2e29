"""Memory estimates against what llama.cpp allocates and logs."""

import re
import subprocess
import sys

import pytest

from terazi.convert.gguf import to_gguf
from terazi.formats import gguf, open_model
from terazi.model import Config, kv_cache_bytes, memory_needed

PROGRAM = """
import sys
from terazi.runtime.llamacpp.library import load
llama = load()
model = llama.llama_model_load_from_file(sys.argv[1].encode(), llama.llama_model_default_params())
options = llama.llama_context_default_params()
options.n_ctx, options.n_threads, options.n_threads_batch, options.swa_full = int(sys.argv[2]), 1, 1, False
options.n_outputs_max = 1  # as servers do: logits of the last token only
llama.llama_init_from_model(model, options)
"""


def allocated(path, context):
    """Bytes of KV cache and compute buffer that llama.cpp reports."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, path, str(context)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    cache = re.findall(r"KV buffer size = +([\d.]+) MiB", done.stderr)
    compute = re.findall(r"compute buffer size = +([\d.]+) MiB", done.stderr)
    assert compute, done.stderr[-2000:]
    return sum(map(float, cache)) * 2**20, float(compute[-1]) * 2**20


@pytest.mark.parametrize("context", [300, 4096])
def test_a_real_model(smollm2, context):
    model = open_model(smollm2)
    cache, compute = allocated(smollm2, context)
    need = memory_needed(model.nbytes, model.config, context)
    assert need.kv_cache == pytest.approx(cache, rel=1e-3)
    assert need.compute == pytest.approx(compute, rel=0.05)


def test_sliding_windows(reference_9m, tmp_path):
    """Gemma 3: five of six layers hold the window and one batch."""
    import shutil

    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    config = Gemma3TextConfig(
        vocab_size=4096,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=8,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        sliding_window=256,
        max_position_embeddings=8192,
    )
    torch.manual_seed(0)
    Gemma3ForCausalLM(config).save_pretrained(tmp_path / "hf")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(reference_9m / name, tmp_path / "hf" / name)
    model = to_gguf(open_model(tmp_path / "hf"))
    path = gguf.write(tmp_path / "g.gguf", model.metadata, list(model.tensors.values()))
    model = open_model(path)
    cache, _ = allocated(path, 8192)
    assert model.config.sliding_window == 256
    assert kv_cache_bytes(model.config, 8192) == pytest.approx(cache, rel=0.01)
    assert kv_cache_bytes(model.config, 8192) < 8 * 8192 * 64 * 2 / 2


def config(**changes):
    values = {
        "architecture": "llama",
        "context_length": 0,
        "embedding_length": 64,
        "block_count": 4,
        "head_count": 4,
        "head_counts_kv": (2, 2, 2, 2),
        "key_length": 16,
        "value_length": 16,
        "feed_forward_length": 128,
        "vocabulary_size": 100,
    }
    return Config(**values | changes)


def test_layers_differ():
    whole = kv_cache_bytes(config(), 1024)
    assert whole == 4 * 2 * 1024 * 32 * 2
    assert kv_cache_bytes(config(head_counts_kv=(2, 0, 0, 2)), 1024) == whole / 2
    assert kv_cache_bytes(config(values={"attention.shared_kv_layers": 3}), 1024) == whole / 4
    assert kv_cache_bytes(config(), 1024, value_bytes=1.0625) == whole * 1.0625 / 2
    assert kv_cache_bytes(config(architecture="bert"), 1024) == 0
    assert kv_cache_bytes(config(), 1000) == whole
