"""Damaged and hostile GGUF files: one clear line, at once, in little memory."""

import struct
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest

from terazi.errors import FormatError, NotFoundError, TeraziError, UnsupportedError
from terazi.formats import gguf, open_model
from terazi.model import Tensor
from terazi.model.description import describe

U32, STRING, ARRAY, U64 = 4, 8, 9, 10


def text(value, length=None):
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(data) if length is None else length) + data


def pair(key, kind, payload):
    return text(key) + struct.pack("<I", kind) + payload


def entry(name="w", shape=(4,), kind=0, offset=0, axes=None):
    axes = len(shape) if axes is None else axes
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", axes, *shape, kind, offset)


ARCHITECTURE = pair("general.architecture", STRING, text("llama"))


def build(*, version=3, pairs=(), tensors=(), data=64, n_pairs=None, n_tensors=None, magic=b"GGUF"):
    pairs = [ARCHITECTURE, *pairs]
    counts = (
        len(tensors) if n_tensors is None else n_tensors,
        len(pairs) if n_pairs is None else n_pairs,
    )
    head = magic + struct.pack("<IQQ", version, *counts) + b"".join(pairs) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + bytes(data)


def u32(key, value):
    return pair(key, U32, struct.pack("<I", value))


def array(key, kind, count, payload=b""):
    return pair(key, ARRAY, struct.pack("<IQ", kind, count) + payload)


CASES = {
    "version 1": build(version=1),
    "version 0": build(version=0),
    "big-endian": build(version=3 << 24),
    "2^62 keys": build(n_pairs=1 << 62),
    "2^62 tensors": build(n_tensors=1 << 62),
    "2^40 tensors": build(n_tensors=1 << 40),
    "one key too many": build(n_pairs=9),
    "key of 2^63 bytes": build(pairs=[text("k", 1 << 63)]),
    "key of 4 GB": build(pairs=[text("k", 1 << 32)]),
    "value of 2^63 bytes": build(pairs=[pair("k", STRING, text("v", (1 << 63) - 1))]),
    "array of 2^60 bytes": build(pairs=[array("k", 0, 1 << 60)]),
    "array of 2^60 strings": build(pairs=[array("k", STRING, 1 << 60)]),
    "array of 2^62 numbers": build(pairs=[array("k", U64, 1 << 62)]),
    "array of more strings than bytes": build(pairs=[array("k", STRING, 100)]),
    "array of arrays": build(pairs=[array("k", ARRAY, 1, struct.pack("<IQ", U32, 0))]),
    "unknown value type": build(pairs=[pair("k", 13, b"")]),
    "unknown element type": build(pairs=[array("k", 77, 1)]),
    "truth value 2": build(pairs=[pair("k", 7, b"\x02")]),
    "truth array with 9": build(pairs=[array("k", 7, 3, b"\x00\x01\x09")]),
    "key not UTF-8": build(pairs=[pair(b"\xff\xfe", U32, bytes(4))]),
    "value not UTF-8": build(pairs=[pair("k", STRING, text(b"\xc3\x28"))]),
    "key twice": build(pairs=[u32("k", 1), u32("k", 2)]),
    "alignment 0": build(pairs=[u32("general.alignment", 0)]),
    "alignment 3": build(pairs=[u32("general.alignment", 3)]),
    "alignment 2^31": build(pairs=[u32("general.alignment", 1 << 31)]),
    "alignment is text": build(pairs=[pair("general.alignment", STRING, text("32"))]),
    "alignment is a list": build(pairs=[array("general.alignment", U32, 2, bytes(8))]),
    "tensor twice": build(tensors=[entry(), entry(offset=32)]),
    "tensor name not UTF-8": build(tensors=[entry(name=b"\xff")]),
    "tensor name of 5000 bytes": build(tensors=[entry(name="n" * 5000)]),
    "99 axes": build(tensors=[entry(axes=99)]),
    "2^32-1 axes": build(tensors=[entry(axes=(1 << 32) - 1)]),
    "axis of 0": build(tensors=[entry(shape=(0,))]),
    "negative axis": build(tensors=[entry(shape=((1 << 64) - 4,))]),
    "shape overflows": build(tensors=[entry(shape=(1 << 32, 1 << 32))]),
    "shape overflows to little": build(tensors=[entry(shape=(1 << 33, 1 << 31, 2))]),
    "type 4 (removed)": build(tensors=[entry(kind=4)]),
    "type 2^31": build(tensors=[entry(kind=1 << 31)]),
    "no whole blocks": build(tensors=[entry(shape=(33,), kind=8)]),
    "outside the file": build(tensors=[entry(offset=64)]),
    "ends outside the file": build(tensors=[entry(shape=(17,))]),
    "offset 2^63": build(tensors=[entry(offset=1 << 63)]),
    "offset not aligned": build(tensors=[entry(offset=8)]),
    "overlapping": build(tensors=[entry("a", (16,)), entry("b", (4,), offset=32)]),
    "same place": build(tensors=[entry("a"), entry("b")]),
    "block_count is text": build(pairs=[pair("llama.block_count", STRING, text("many"))]),
    "block_count 2^32-1": build(pairs=[u32("llama.block_count", (1 << 32) - 1)]),
    "heads per layer too few": build(
        pairs=[u32("llama.block_count", 8), array("llama.attention.head_count_kv", U32, 2, bytes(8))]
    ),
    "split.count is text": build(pairs=[pair("split.count", STRING, text("2"))]),
    "split of 65535": build(pairs=[pair("split.count", 2, b"\xff\xff")]),
}


@pytest.mark.parametrize("data", CASES.values(), ids=CASES.keys())
def test_one_clear_line(data, tmp_path):
    path = tmp_path / "bad.gguf"
    path.write_bytes(data)
    tracemalloc.start()
    start = time.process_time()
    try:
        with pytest.raises((FormatError, UnsupportedError)) as caught:
            open_model(path)
        assert time.process_time() - start < 1
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < len(str(path)) + 250


def test_the_builder_builds_valid_files(tmp_path):
    """Otherwise the cases above could fail for another reason than the one they are about."""
    path = tmp_path / "good.gguf"
    path.write_bytes(
        build(pairs=[u32("k", 1), array("l", STRING, 1, text("s"))], tensors=[entry(), entry("v", offset=32)])
    )
    model = open_model(path)
    assert model.metadata["l"] == ["s"]
    assert [tensor.shape for tensor in model.tensors.values()] == [(4,), (4,)]


def test_truncated_anywhere(tmp_path):
    whole = tmp_path / "whole.gguf"
    metadata = {
        "general.architecture": "llama",
        "llama.block_count": 2,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": ["a", "b"],
        "tokenizer.ggml.scores": np.ones(2, np.float32),
    }
    tensors = [Tensor.from_array(name, np.ones((2, 4), np.float32)) for name in ("token_embd.weight", "x")]
    gguf.write(whole, metadata, tensors)
    data = whole.read_bytes()
    open_model(whole)
    path = tmp_path / "cut.gguf"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(TeraziError):
            open_model(path)


@pytest.mark.parametrize("name", ["../escape-00001-of-00002.gguf", "model.gguf", "model-00001-of-00003.gguf"])
def test_parts_are_looked_for_only_beside_the_file(name, tmp_path):
    (tmp_path / "models").mkdir()
    path = tmp_path / "models" / name
    path.write_bytes(build(pairs=[pair("split.count", 2, b"\x02\x00")]))
    with pytest.raises(TeraziError):
        open_model(path)


def test_a_missing_part_is_named(tmp_path):
    path = tmp_path / "m-00001-of-00002.gguf"
    path.write_bytes(build(pairs=[pair("split.count", 2, b"\x02\x00")]))
    with pytest.raises(NotFoundError, match="m-00002-of-00002"):
        open_model(path)


def part(number, count, name, total=2):
    pairs = [
        pair("split.no", 2, struct.pack("<H", number)),
        pair("split.count", 2, struct.pack("<H", count)),
        pair("split.tensors.count", 5, struct.pack("<i", total)),
    ]
    return build(pairs=pairs, tensors=[entry(name)])


@pytest.mark.parametrize(
    ("second", "problem"),
    [
        (part(1, 3, "b"), "not one of the same"),
        (part(0, 2, "b"), "its name says part 2"),
        (part(1, 2, "a"), "in another part too"),
        (build(), "not one of the same"),
    ],
)
def test_parts_that_do_not_belong_together(second, problem, tmp_path):
    (tmp_path / "m-00001-of-00002.gguf").write_bytes(part(0, 2, "a"))
    (tmp_path / "m-00002-of-00002.gguf").write_bytes(second)
    with pytest.raises(FormatError, match=problem):
        open_model(tmp_path / "m-00001-of-00002.gguf")


def test_parts_with_fewer_tensors_than_promised(tmp_path):
    for number, name in enumerate("ab"):
        (tmp_path / f"m-0000{number + 1}-of-00002.gguf").write_bytes(part(number, 2, name, total=3))
    with pytest.raises(FormatError, match="promises 3 tensors"):
        open_model(tmp_path / "m-00001-of-00002.gguf")


@pytest.mark.parametrize(
    "kind", ["attention.sliding_window_pattern", "attention.shared_kv_layers", "pooling"]
)
def test_odd_values_do_not_break_the_estimate(kind, tmp_path):
    path = tmp_path / "odd.gguf"
    pairs = [
        u32("llama.block_count", 4),
        u32("llama.attention.sliding_window", 16),
        pair(f"llama.{kind}", STRING, text("odd")),
    ]
    path.write_bytes(build(pairs=pairs))
    assert describe(open_model(path)).memory.total > 0


@pytest.mark.parametrize("case", ["2^62 keys", "overlapping", "value not UTF-8"])
def test_the_command_line_prints_one_line(case, tmp_path):
    path = tmp_path / "bad.gguf"
    path.write_bytes(CASES[case])
    done = subprocess.run(
        [sys.executable, "-m", "terazi", "inspect", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {path}: ")
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 2  # the error and the hint


@pytest.mark.parametrize("name", ["model.bin", "model.pt", "pytorch_model.bin"])
@pytest.mark.parametrize("start", [b"PK\x03\x04", b"\x80\x02"])
def test_pickles_are_refused_unread(name, start, tmp_path):
    (tmp_path / name).write_bytes(start + b"cos\nsystem\n(S'touch pwned'\ntR.")
    for path in (tmp_path / name, tmp_path):
        with pytest.raises(UnsupportedError, match="pickle") as caught:
            open_model(path)
        assert "safetensors" in caught.value.hint


def test_what_is_no_regular_file(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe.gguf")
    for path in (tmp_path / "pipe.gguf", "/dev/zero"):
        with pytest.raises(FormatError, match="not a regular file"):
            open_model(path)
    (tmp_path / "empty.gguf").touch()
    with pytest.raises(FormatError):
        open_model(tmp_path / "empty.gguf")
