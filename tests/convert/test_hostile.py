"""Damaged and hostile checkpoints: one clear error, never anything else."""

import contextlib
import json
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from terazi.convert import sentencepiece
from terazi.convert.gguf import to_gguf
from terazi.convert.huggingface_tokenizer import tokenizer_files
from terazi.errors import TeraziError
from terazi.formats import open_model

ODD = st.sampled_from(
    [None, True, -1, 0, 2, 1 << 40, 1e400, 0.5, "", "x", "model", [], [None], [1, 2], {}, {"type": "x"}]
)
NAMES = ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"]
CALM = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


def places(value, path=()):
    """Yield the path of every value in a JSON document, but for most of the vocabulary."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for number, (key, inner) in enumerate(items):
        if number < 20:
            yield from places(inner, (*path, key))


def changed(value, path, other):
    if not path:
        return other
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(value[path[0]], path[1:], other)
    return copy


@pytest.fixture
def small(save):
    transformers = pytest.importorskip("transformers")
    config = transformers.Qwen3Config(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        rope_parameters={"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0, "beta_fast": 32.0},
    )
    return save(transformers.Qwen3ForCausalLM(config), chat_template="{{ messages }}")


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25, **CALM)
@given(data=st.data())
def test_any_value_may_be_anything(name, small, data):
    file = small / name
    original = json.loads(file.read_text("utf-8"))
    path = data.draw(st.sampled_from(list(places(original))))
    file.write_text(json.dumps(changed(original, path, data.draw(ODD))))
    with contextlib.suppress(TeraziError):
        for tensor in to_gguf(open_model(small)).tensors.values():
            tensor.encoded()
    file.write_text(json.dumps(original))


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "modules.json", "special_tokens_map.json"])
@settings(max_examples=12, **CALM)
@given(content=st.one_of(st.binary(max_size=40), st.just(b"deep"), st.just(b"{}"), st.just(b"[]")))
def test_any_bytes(name, small, content):
    file = small / name
    original = file.read_bytes() if file.exists() else b"{}"
    file.write_bytes(b"[" * 100_000 if content == b"deep" else content)
    with contextlib.suppress(TeraziError):
        to_gguf(open_model(small))
    file.write_bytes(original)


@settings(max_examples=150, **CALM)
@given(data=st.data())
def test_sentencepiece_bytes(data, tmp_path):
    piece = b"\x0a\x03abc\x15\x00\x00\x80\xbf\x18\x01"
    whole = (b"\x0a" + bytes([len(piece)]) + piece) * 3 + b"\x12\x02\x18\x02" + b"\x1a\x02\x18\x01"
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    (tmp_path / "tokenizer.model").write_bytes(content)
    with contextlib.suppress(TeraziError):
        pieces = sentencepiece.read(tmp_path / "tokenizer.model")
        assert len(pieces.tokens) == len(pieces.scores) == len(pieces.kinds)


@settings(max_examples=60, **CALM)
@given(data=st.data())
def test_vocabularies_on_the_way_back(data, small):
    metadata = dict(to_gguf(open_model(small)).metadata)
    key = data.draw(st.sampled_from([key for key in metadata if key.startswith("tokenizer")]))
    metadata[key] = data.draw(ODD)
    with contextlib.suppress(TeraziError):
        tokenizer_files(metadata)


def test_a_directory_that_lost_its_weights(small, tmp_path):
    shutil.copytree(small, tmp_path / "copy")
    (tmp_path / "copy" / "model.safetensors").unlink()
    with pytest.raises(TeraziError):
        open_model(tmp_path / "copy")
