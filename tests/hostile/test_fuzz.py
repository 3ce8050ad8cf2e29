"""Whatever bytes a file has, opening it gives a model or a Terazi error: never another exception."""

import json
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from terazi.errors import TeraziError
from terazi.formats import gguf, open_model
from terazi.model import Tensor
from terazi.model.description import describe

# Values around the limits of what fields hold, as they lie in a file.
EDGES = [
    *(
        struct.pack("<Q", value)
        for value in (0, 1, 31, 33, 1 << 31, 1 << 32, 1 << 60, 1 << 62, (1 << 64) - 1)
    ),
    *(struct.pack("<I", value) for value in (0, 1, 3, 4, 7, 8, 9, 12, 99, 1 << 31, (1 << 32) - 1)),
    b"\xff",
    b"\x00",
]


@st.composite
def mutations(draw, size):
    """A list of (position, bytes removed, bytes put there)."""
    step = st.tuples(
        st.integers(0, size - 1),
        st.sampled_from([0, 1, 4, 8, 8, 64]),
        st.one_of(st.sampled_from(EDGES), st.binary(max_size=12)),
    )
    return draw(st.lists(step, min_size=1, max_size=4))


def mutated(data, changes, *, keep_size):
    out = bytearray(data)
    for position, removed, put in changes:
        out[position : position + (len(put) if keep_size else removed)] = put
    return bytes(out)


def open_and_use(path):
    """Open it and, when that works, do what every user of a model does. Returns the message of an error."""
    try:
        model = open_model(path)
        describe(model, context=4096)
        for tensor in model.tensors.values():
            assert tensor.encoded().shape == (tensor.row_count, tensor.row_bytes)
    except TeraziError as error:
        return error.message
    return ""


def check(path):
    message = open_and_use(path)
    assert "\n" not in message
    assert len(message) < 1000


def valid_gguf(path):
    metadata = {
        "general.architecture": "gemma3",
        "general.name": "tiny chat",
        "general.alignment": np.uint32(32),
        "general.tags": ["conversational"],
        "gemma3.block_count": 2,
        "gemma3.context_length": 128,
        "gemma3.embedding_length": 32,
        "gemma3.attention.head_count": 2,
        "gemma3.attention.head_count_kv": np.array([1, 2], np.uint32),
        "gemma3.attention.sliding_window": 64,
        "gemma3.attention.sliding_window_pattern": np.array([True, False]),
        "gemma3.rope.freq_base": 1e4,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": ["a", "b"],
        "tokenizer.ggml.bos_token_id": 1,
        "split.count": np.uint16(1),
    }
    generator = np.random.default_rng(0)
    blocks = generator.integers(0, 255, (2, 34), np.uint8)
    tensors = [
        Tensor.from_array("token_embd.weight", generator.standard_normal((2, 32), np.float32)),
        Tensor(name="q", shape=(1, 2, 32), type="Q8_0", read=lambda start, stop: blocks[start:stop]),
        Tensor.from_array("norm", np.ones(32, np.float16)),
    ]
    gguf.write(path, metadata, tensors, force=True)
    open_model(path)
    return path.read_bytes()


@pytest.mark.parametrize("keep_size", [True, False])
def test_gguf(keep_size, tmp_path):
    data = valid_gguf(tmp_path / "valid.gguf")
    path = tmp_path / "fuzzed.gguf"

    @settings(max_examples=400, deadline=2000, suppress_health_check=list(HealthCheck))
    @given(mutations(len(data) - 200))
    def run(changes):
        path.write_bytes(mutated(data, changes, keep_size=keep_size))
        check(path)

    run()


def valid_directory(path):
    header = {
        "__metadata__": {"format": "pt"},
        "model.embed_tokens.weight": {"dtype": "BF16", "shape": [4, 8], "data_offsets": [0, 64]},
        "model.norm.weight": {"dtype": "F32", "shape": [8], "data_offsets": [64, 96]},
    }
    text = json.dumps(header).encode()
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "vocab_size": 4,
        "layer_types": ["full_attention"],
        "rope_parameters": {"rope_theta": 10000.0},
    }
    tokenizer = {
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []},
        "added_tokens": [{"id": 2, "content": "<s>"}],
    }
    (path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(96))
    (path / "config.json").write_text(json.dumps(config))
    (path / "tokenizer.json").write_text(json.dumps(tokenizer))
    (path / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "chat_template": "{{ x }}"}))
    (path / "README.md").write_text("---\nlicense: other\nlicense_name: odd\ntags:\n- conversational\n---\n")
    open_model(path)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "README.md"])
def test_huggingface(name, tmp_path):
    valid_directory(tmp_path)
    data = (tmp_path / name).read_bytes()

    @settings(max_examples=150, deadline=2000, suppress_health_check=list(HealthCheck))
    @given(mutations(len(data)), st.booleans())
    def run(changes, keep_size):
        (tmp_path / name).write_bytes(mutated(data, changes, keep_size=keep_size))
        check(tmp_path)

    run()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_values_of_another_kind(name, tmp_path):
    """Valid JSON in which any one value is replaced by any other."""
    valid_directory(tmp_path)
    original = json.loads((tmp_path / name).read_text())

    @settings(max_examples=150, deadline=2000, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(sorted(original)), json_values)
    def run(key, value):
        (tmp_path / name).write_text(json.dumps(original | {key: value}))
        check(tmp_path)

    run()
