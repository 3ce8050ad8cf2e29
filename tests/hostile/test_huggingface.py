"""Damaged and hostile Hugging Face directories: one clear line, at once, in little memory."""

import json
import struct
import time
import tracemalloc

import pytest

from terazi.errors import FormatError, NotFoundError, TeraziError, UnsupportedError
from terazi.formats import open_model

CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "vocab_size": 2,
}


def safetensors(header, data=16, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + bytes(data)


def entry(shape=(4,), kind="F32", start=0, stop=16):
    return {"dtype": kind, "shape": list(shape), "data_offsets": [start, stop]}


def directory(tmp_path, weights, config=CONFIG):
    text = config if isinstance(config, bytes) else json.dumps(config).encode()
    (tmp_path / "config.json").write_bytes(text)
    (tmp_path / "model.safetensors").write_bytes(weights)
    return tmp_path


WEIGHTS = {
    "empty": b"",
    "seven bytes": bytes(7),
    "header 2^63": safetensors({}, length=1 << 63),
    "header 4 GB": safetensors({}, length=1 << 32),
    "header past the end": safetensors({}, length=400),
    "no JSON": safetensors(b"{nonsense"),
    "list": safetensors([1, 2]),
    "number": safetensors(b"{" + b" " * 20),
    "deep JSON": safetensors(b'{"a":' * 200_000),
    "deep list": safetensors(b'{"a":' + b"[" * 200_000),
    "huge integer": safetensors(b'{"a":' + b"9" * 20_000 + b"}"),
    "not UTF-8": safetensors(b'{"\xff": 1}'),
    "name twice": safetensors(b'{"a": 1, "a": 2}'),
    "entry is a number": safetensors({"a": 1}),
    "entry is null": safetensors({"a": None}),
    "entry is a list": safetensors({"a": [1, 2]}),
    "no dtype": safetensors({"a": {"shape": [4], "data_offsets": [0, 16]}}),
    "dtype is a list": safetensors({"a": entry(kind=["F32"])}),
    "dtype unknown": safetensors({"a": entry(kind="F33")}),
    "shape is a number": safetensors({"a": {"dtype": "F32", "shape": 4, "data_offsets": [0, 16]}}),
    "shape of text": safetensors({"a": entry(shape=["4"])}),
    "shape of fractions": safetensors({"a": entry(shape=[4.0])}),
    "shape of truths": safetensors({"a": entry(shape=[True, 4])}),
    "negative axis": safetensors({"a": entry(shape=(-4,))}),
    "axis of 0": safetensors({"a": entry(shape=(0,), stop=0)}),
    "shape overflows": safetensors({"a": entry(shape=(1 << 62, 4))}),
    "99 axes": safetensors({"a": entry(shape=(1,) * 99, stop=4)}),
    "three offsets": safetensors({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 8, 16]}}),
    "offsets swapped": safetensors({"a": entry(start=16, stop=0)}),
    "negative offset": safetensors({"a": entry(start=-16, stop=0)}),
    "outside": safetensors({"a": entry(start=16, stop=32)}),
    "2^63 offset": safetensors({"a": entry(start=1 << 63, stop=(1 << 63) + 16)}),
    "wrong size": safetensors({"a": entry(shape=(3,))}),
    "overlapping": safetensors({"a": entry(stop=16), "b": entry(shape=(2,), start=8, stop=16)}),
}


@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS.keys())
def test_one_clear_line(weights, tmp_path):
    path = directory(tmp_path, weights)
    tracemalloc.start()
    start = time.process_time()
    try:
        with pytest.raises(FormatError) as caught:
            open_model(path)
        assert time.process_time() - start < 1
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
    assert "model.safetensors: " in caught.value.message
    assert "\n" not in caught.value.message
    assert len(caught.value.problem) < 250


@pytest.mark.parametrize("kind", ["U8", "BOOL", "F8_E4M3", "U32"])
def test_weights_that_are_quantized_already(kind, tmp_path):
    size = {"U32": 16}.get(kind, 4)
    path = directory(tmp_path, safetensors({"a": entry(kind=kind, stop=size)}))
    with pytest.raises(UnsupportedError, match=kind) as caught:
        open_model(path)
    assert "unquantized" in caught.value.hint


CONFIGS = {
    "no JSON": b"{",
    "deep": b'{"a":' * 200_000,
    "list": b"[]",
    "no model_type": json.dumps({k: v for k, v in CONFIG.items() if k != "model_type"}).encode(),
    "model_type is a number": json.dumps(CONFIG | {"model_type": 1}).encode(),
    "layers are text": json.dumps(CONFIG | {"num_hidden_layers": "12"}).encode(),
    "layers are negative": json.dumps(CONFIG | {"num_hidden_layers": -1}).encode(),
    "layers are many": json.dumps(CONFIG | {"num_hidden_layers": 1 << 40}).encode(),
    "width is infinite": json.dumps(CONFIG | {"hidden_size": float("inf")}).encode(),
    "vocabulary is true": json.dumps(CONFIG | {"vocab_size": True}).encode(),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_bad_configurations(config, tmp_path):
    path = directory(tmp_path, safetensors({"a": entry()}), config)
    with pytest.raises(FormatError, match=r"config\.json"):
        open_model(path)


def test_the_builder_builds_valid_files(tmp_path):
    model = open_model(directory(tmp_path, safetensors({"__metadata__": {"x": "y"}, "a": entry()})))
    assert model.tensors["a"].rows().tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize(
    "name",
    ["../other.safetensors", "/etc/passwd", "a/b.safetensors", "..\\b.safetensors", "x.bin", "", "."],
)
def test_an_index_names_only_files_beside_it(name, tmp_path):
    path = directory(tmp_path, safetensors({"a": entry()}))
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(FormatError, match="no file beside it"):
        open_model(path)


@pytest.mark.parametrize("index", ["[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', "{"])
def test_bad_indexes(index, tmp_path):
    path = directory(tmp_path, safetensors({"a": entry()}))
    (path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(FormatError, match="index"):
        open_model(path)


def test_parts_that_are_missing_or_hold_something_else(tmp_path):
    path = directory(tmp_path, safetensors({"a": entry()}))
    index = path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "part2.safetensors"}}))
    with pytest.raises(NotFoundError, match="part2"):
        open_model(path)
    index.write_text(json.dumps({"weight_map": {"b": "model.safetensors"}}))
    with pytest.raises(FormatError, match="does not hold it"):
        open_model(path)


def test_truncated_anywhere(tmp_path):
    data = safetensors({"a": entry(), "b": entry(start=16, stop=32)}, data=32)
    for length in range(len(data)):
        with pytest.raises(TeraziError):
            open_model(directory(tmp_path, data[:length]))


def test_weights_without_a_configuration(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(safetensors({"a": entry()}))
    with pytest.raises(NotFoundError, match=r"no config\.json"):
        open_model(tmp_path / "model.safetensors")


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "chat_template.json"])
@pytest.mark.parametrize("text", ["{", "[]", '{"a": ' * 100_000])
def test_bad_companions(name, text, tmp_path):
    path = directory(tmp_path, safetensors({"a": entry()}))
    (path / name).write_text(text)
    with pytest.raises(FormatError, match=name):
        open_model(path)


@pytest.mark.parametrize(
    "text",
    [
        '{"model": {"type": 1, "vocab": 3}, "added_tokens": [1, {"content": 5}, {"content": "x"}]}',
        '{"model": {"type": [], "vocab": [[]]}, "added_tokens": {"a": 1}}',
        '{"model": null, "added_tokens": null}',
        '{"model": {}, "added_tokens": 5}',
    ],
)
def test_odd_tokenizers_do_not_matter_for_reading(text, tmp_path):
    path = directory(tmp_path, safetensors({"a": entry()}))
    (path / "tokenizer.json").write_text(text)
    (path / "tokenizer_config.json").write_text('{"bos_token": ["x"], "eos_token": {"content": []}}')
    assert open_model(path).parameters == 4
