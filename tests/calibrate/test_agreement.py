"""Sums of squared activations: llama.cpp's, observed, against transformers', hooked, on the same tokens."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM

from terazi.calibrate import Corpus, collect
from terazi.runtime.llamacpp.observer import Observer

CONTEXT, CHUNKS = 128, 2


def windows_of(path, text, *, encoder=False):
    """The chunks that `collect` makes, by its documented rule."""
    with Observer(path, context=CONTEXT, threads=1, encoder=encoder) as observer:
        tokens = observer.tokenize(text)
        begin = observer.begin_token
    windows = tokens[: CHUNKS * CONTEXT].reshape(CHUNKS, CONTEXT).copy()
    if begin is not None:
        windows[:, 0] = begin
    return windows


@contextmanager
def hooked(model, names):
    """Collect float64 sums of squared inputs of modules: GGUF name -> sums, filled as the model runs."""
    sums, handles = {}, []

    def watch(name):
        def hook(module, inputs):
            rows = inputs[0].detach().reshape(-1, inputs[0].shape[-1]).double()
            sums[name] = sums.get(name, 0) + rows.square().sum(0).numpy()

        return hook

    modules = dict(model.named_modules())
    for source, name in names.items():
        handles.append(modules[source].register_forward_pre_hook(watch(name)))
    yield sums
    for handle in handles:
        handle.remove()


def run(model, windows):
    with torch.no_grad():
        for window in windows:
            model(torch.from_numpy(window.astype(np.int64))[None])


LLAMA = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def test_a_trained_llama(reference_9m, as_gguf, words):
    """Within 1 % per column (llama.cpp's cache is F16), 0.1 % in the median, for all 56 weights."""
    path = as_gguf(reference_9m)
    corpus = Corpus("words", words[:8000])
    found = collect(path, corpus, context=CONTEXT, chunks=CHUNKS, threads=1)
    model = AutoModelForCausalLM.from_pretrained(reference_9m, dtype=torch.float32).eval()
    layers = range(model.config.num_hidden_layers)
    names = {
        f"model.layers.{layer}.{source}": f"blk.{layer}.{name}.weight"
        for layer in layers
        for source, name in LLAMA.items()
    }
    with hooked(model, names) as expected:
        run(model, windows_of(path, corpus.text))
    assert set(found) == set(expected)
    assert len(found) == 56
    for name, sums in expected.items():
        assert found.sums[name].counts.tolist() == [CHUNKS * CONTEXT]
        error = np.abs(found.sums[name].squares[0] / sums - 1)
        assert error.max() < 0.01, name
        assert np.median(error) < 0.001, name
        assert np.allclose(found[name], sums / (CHUNKS * CONTEXT), rtol=0.01)


def test_every_expert_counts_its_own_tokens(experts, as_gguf, words):
    """Up to two tokens per expert may be routed otherwise: llama.cpp's cache is F16, and ties are near."""
    path = as_gguf(experts)
    corpus = Corpus("words", words[:8000])
    found = collect(path, corpus, context=CONTEXT, chunks=CHUNKS, threads=1)
    model = AutoModelForCausalLM.from_pretrained(experts, dtype=torch.float32).eval()
    blocks = [layer.mlp for layer in model.model.layers]
    hidden = {number: [] for number in range(len(blocks))}
    handles = [
        block.register_forward_pre_hook(
            lambda module, inputs, number=number: hidden[number].append(inputs[0].detach().reshape(-1, 64))
        )
        for number, block in enumerate(blocks)
    ]
    run(model, windows_of(path, corpus.text))
    for handle in handles:
        handle.remove()
    for number, block in enumerate(blocks):
        rows = torch.cat(hidden[number])
        gate = block.gate.weight.detach()
        chosen = torch.softmax(rows @ gate.T, -1).topk(2, -1).indices
        expert_weights = block.experts.gate_up_proj.detach()
        entry = {kind: found.sums[f"blk.{number}.ffn_{kind}_exps.weight"] for kind in ("gate", "up", "down")}
        for expert in range(8):
            routed = rows[(chosen == expert).any(-1)].double()
            gated, raised = (routed @ expert_weights[expert].double().T).chunk(2, -1)
            inner = torch.nn.functional.silu(gated) * raised
            for kind, inputs in (("gate", routed), ("up", routed), ("down", inner)):
                seen = entry[kind].counts[expert]
                assert abs(seen - len(routed)) <= 2
                means = inputs.square().mean(0).numpy()
                error = np.abs(entry[kind].squares[expert] / seen / means - 1)
                assert np.median(error) < (0.01 if number == 0 and seen == len(routed) else 0.08)
        assert entry["gate"].counts.sum() == 2 * CHUNKS * CONTEXT
    assert found["blk.0.ffn_up_exps.weight"].shape == (8, 64)


def test_an_encoder(minilm, as_gguf, words):
    path = as_gguf(minilm)
    corpus = Corpus("words", words[:6000])
    found = collect(path, corpus, context=CONTEXT, chunks=CHUNKS, threads=1)
    model = AutoModel.from_pretrained(minilm, dtype=torch.float32).eval()
    parts = {
        "attention.self.query": "attn_q",
        "attention.self.value": "attn_v",
        "attention.output.dense": "attn_output",
        "intermediate.dense": "ffn_up",
        "output.dense": "ffn_down",
    }
    names = {
        f"encoder.layer.{layer}.{source}": f"blk.{layer}.{name}.weight"
        for layer in range(6)
        for source, name in parts.items()
    }
    with hooked(model, names) as expected:
        run(model, windows_of(path, corpus.text, encoder=True))
    assert set(expected) < set(found)
    for name, sums in expected.items():
        error = np.abs(found.sums[name].squares[0] / sums - 1)
        assert np.median(error) < 0.01, name
        assert error.max() < 0.1, name


def test_the_output_is_watched_when_asked(experts, as_gguf, words):
    corpus = Corpus("words", words[:3000])
    path = as_gguf(experts)
    options = {"context": CONTEXT, "chunks": 1, "threads": 1}
    assert "output.weight" not in collect(path, corpus, **options)
    found = collect(path, corpus, output_tensor=True, **options)
    assert found["output.weight"].shape == (64,)


def test_a_model_that_computes_nonsense_is_named(experts, as_gguf, words, tmp_path):
    from terazi.errors import EngineError
    from terazi.formats import gguf, open_model
    from terazi.model import Tensor

    model = open_model(as_gguf(experts))
    tensors = dict(model.tensors)
    norm = tensors["blk.1.attn_norm.weight"].rows()[0].copy()
    norm[3] = np.nan
    tensors["blk.1.attn_norm.weight"] = Tensor.from_array("blk.1.attn_norm.weight", norm)
    path = gguf.write(tmp_path / "nan.gguf", model.metadata, list(tensors.values()))
    with pytest.raises(EngineError, match=r"blk\.1\.attn_\w+\.weight are not finite"):
        collect(path, Corpus("words", words[:3000]), context=CONTEXT, chunks=1, threads=1)
