"""A trained language model exported by onnxruntime-genai's builder: what transformers computes and writes."""

import json

import numpy as np
import pytest

from terazi.convert.onnx import convert
from terazi.errors import EngineError
from terazi.formats import open_model
from terazi.runtime.onnxruntime import open_engine

pytest.importorskip("onnxruntime_genai")

TEXT = "The king hath"


@pytest.fixture(scope="module")
def exported(reference_9m, tmp_path_factory):
    output = tmp_path_factory.mktemp("genai") / "model"
    convert(open_model(reference_9m), output)
    return output


@pytest.mark.slow
def test_logits_and_greedy_text_are_those_of_transformers(exported, reference_9m):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    network = AutoModelForCausalLM.from_pretrained(reference_9m, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(reference_9m)
    prompt = tokenizer(TEXT, return_tensors="pt")
    with torch.inference_mode():
        expected = network(**prompt).logits[0].numpy()
        written = network.generate(**prompt, max_new_tokens=24, do_sample=False)[0]
    pieces = []
    with open_engine(exported, threads=1) as engine:
        tokens = engine.tokenize(TEXT)
        assert tokens == prompt["input_ids"][0].tolist()
        assert engine.detokenize(tokens) == TEXT
        seen = engine.logits(tokens)
        assert np.abs(seen - expected).max() < 1e-3
        assert np.array_equal(engine.logits(tokens, first=2), seen[2:])
        assert engine.vocabulary == expected.shape[1]
        made = engine.generate(TEXT, max_tokens=24, temperature=0, on_text=pieces.append)
        assert made.text == tokenizer.decode(written[len(tokens) :], skip_special_tokens=True)
        assert "".join(pieces) == made.text
        drawn = [engine.generate(TEXT, max_tokens=8, seed=3).text for _ in range(2)]
        assert drawn[0] == drawn[1]
        timings = engine.time(prompt_tokens=32, decode_tokens=4, repeats=3, seconds=1)
        assert len(timings.prompt_seconds) == len(timings.decode_seconds) == 3
        assert engine.peak_memory > 36_000_000
        with pytest.raises(EngineError, match="do not fit"):
            engine.logits([1] * 600)


def test_a_broken_directory_gets_one_line(tmp_path):
    (tmp_path / "genai_config.json").write_text("{")
    with pytest.raises(EngineError, match="onnxruntime-genai cannot load"):
        open_engine(tmp_path, threads=1)
    (tmp_path / "genai_config.json").write_text(
        json.dumps({"model": {"vocab_size": 8, "context_length": 8, "type": "llama", "decoder": {}}})
    )
    with pytest.raises(EngineError, match="onnxruntime-genai cannot load"):
        open_engine(tmp_path, threads=1)
