"""Importance matrix files: llama.cpp's names and layout, both old formats, damage, merging, statistics."""

import struct
from pathlib import Path

import gguf as reference
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from terazi.calibrate import Calibration, Sums, is_calibration, load, merge, save, statistics
from terazi.errors import ExistsError, FormatError, NotFoundError, TeraziError, UsageError
from terazi.formats import gguf
from terazi.model import Tensor

GOLDEN = Path(__file__).parents[1] / "golden" / "imatrix"


def made(seed=0, **changes):
    generator = np.random.default_rng(seed)
    sums = {
        "blk.0.attn_q.weight": Sums(generator.random((1, 64), np.float32) * 100, np.array([1024])),
        "blk.1.attn_q.weight": Sums(generator.random((1, 64), np.float32) * 100, np.array([1024])),
        "blk.0.ffn_up_exps.weight": Sums(generator.random((3, 32), np.float32), np.array([700, 0, 1300])),
    }
    values = {
        "sums": sums,
        "datasets": ("a.txt",),
        "text_digests": ("0" * 64,),
        "chunks": 2,
        "chunk_size": 512,
    }
    return Calibration(**values | changes)


def test_what_is_saved_is_loaded(tmp_path):
    calibration = made()
    path = save(tmp_path / "i.gguf", calibration)
    again = load(path)
    assert again.digest == calibration.digest
    assert (again.datasets, again.text_digests, again.chunks, again.chunk_size) == (
        ("a.txt",),
        ("0" * 64,),
        2,
        512,
    )
    assert again.path == path
    assert save(tmp_path / "j.gguf", again).read_bytes() == path.read_bytes()
    assert is_calibration(path)
    assert not is_calibration(tmp_path / "nothing")
    with pytest.raises(ExistsError):
        save(path, calibration)


def test_the_mapping_gives_mean_squares():
    calibration = made()
    assert list(calibration) == list(calibration.sums)
    assert len(calibration) == 3
    sums = calibration.sums["blk.0.attn_q.weight"].squares[0]
    assert np.array_equal(calibration["blk.0.attn_q.weight"], sums / np.float32(1024))
    experts = calibration["blk.0.ffn_up_exps.weight"]
    assert experts.shape == (3, 32)
    assert (experts[1] == 1).all()
    assert calibration.unrouted == {"blk.0.ffn_up_exps.weight": 1}
    assert "nothing" not in calibration


def test_names_and_shapes_are_those_of_llama_imatrix(tmp_path):
    """Read with the reference package: keys, sorted tensors, F32, axes as ggml writes them."""
    reader = reference.GGUFReader(save(tmp_path / "i.gguf", made()))
    assert reader.fields["general.type"].contents() == "imatrix"
    assert reader.fields["imatrix.datasets"].contents() == ["a.txt"]
    assert reader.fields["imatrix.chunk_count"].types == [reference.GGUFValueType.UINT32]
    assert reader.fields["imatrix.chunk_count"].contents() == 2
    assert reader.fields["imatrix.chunk_size"].types == [reference.GGUFValueType.UINT32]
    assert [(t.name, t.shape.tolist(), t.tensor_type.name) for t in reader.tensors] == [
        ("blk.0.attn_q.weight.in_sum2", [64], "F32"),
        ("blk.0.attn_q.weight.counts", [1], "F32"),
        ("blk.0.ffn_up_exps.weight.in_sum2", [32, 3], "F32"),
        ("blk.0.ffn_up_exps.weight.counts", [1, 3], "F32"),
        ("blk.1.attn_q.weight.in_sum2", [64], "F32"),
        ("blk.1.attn_q.weight.counts", [1], "F32"),
    ]


def test_files_that_llama_imatrix_wrote():
    """Both its formats, from one run on a mixture of 8 experts (tests/golden/imatrix/collector.cpp)."""
    new, old = load(GOLDEN / "llama-imatrix.gguf"), load(GOLDEN / "llama-imatrix.dat")
    assert list(new) == list(old)
    assert (new.chunks, new.chunk_size, new.datasets) == (3, 128, ("words",))
    assert (old.chunks, old.datasets) == (3, ("words",))
    assert new["blk.1.ffn_down_exps.weight"].shape == (8, 32)
    for name in new:
        assert np.allclose(new[name].reshape(-1), old[name].reshape(-1), rtol=1e-6)


def test_its_file_is_rewritten_byte_for_byte(tmp_path):
    golden = GOLDEN / "llama-imatrix.gguf"
    assert save(tmp_path / "again.gguf", load(golden)).read_bytes() == golden.read_bytes()


def legacy(entries, trailer=b""):
    out = struct.pack("<i", len(entries))
    for name, calls, values in entries:
        out += struct.pack("<i", len(name)) + name + struct.pack("<ii", calls, len(values))
        out += np.asarray(values, "<f4").tobytes()
    return out + trailer


@pytest.mark.parametrize("with_trailer", [False, True])
def test_the_older_format(with_trailer, tmp_path):
    """Values are means times calls; llama-quantize divides by the calls."""
    path = tmp_path / "old.dat"
    trailer = struct.pack("<ii", 7, 8) + b"wiki.txt" if with_trailer else b""
    values = np.random.default_rng(0).random(64, np.float32) * 9
    path.write_bytes(
        legacy([(b"blk.0.attn_q.weight", 7, values), (b"output.weight", 7, values[:32])], trailer)
    )
    found = load(path)
    assert is_calibration(path)
    assert np.array_equal(found["blk.0.attn_q.weight"], values / np.float32(7))
    assert len(found["output.weight"]) == 32
    assert (found.chunks, found.datasets) == ((7, ("wiki.txt",)) if with_trailer else (0, ()))
    again = load(save(tmp_path / "new.gguf", found))
    assert np.array_equal(again["blk.0.attn_q.weight"], values / np.float32(7))


BAD_LEGACY = {
    "empty": b"",
    "no entries": struct.pack("<i", 0),
    "negative entries": struct.pack("<i", -1) + bytes(60),
    "2^31-1 entries": struct.pack("<i", (1 << 31) - 1) + bytes(60),
    "name past the end": struct.pack("<ii", 1, 1 << 30) + bytes(60),
    "negative name": struct.pack("<ii", 1, -5) + bytes(60),
    "name not UTF-8": legacy([(b"\xff\xfe", 1, [1.0, 2, 3])]),
    "values past the end": struct.pack("<ii", 1, 1) + b"a" + struct.pack("<ii", 1, 1 << 29) + bytes(60),
    "no values": legacy([(b"a", 1, [])]) + bytes(20),
    "twice": legacy([(b"a", 1, [1.0]), (b"a", 1, [1.0])]),
    "not finite": legacy([(b"aaaa", 1, [1.0, np.nan])]),
    "negative": legacy([(b"aaaa", 1, [1.0, -1.0])]),
    "text": b"This is a text file, and a rather long one." * 4,
}


@pytest.mark.parametrize("data", BAD_LEGACY.values(), ids=BAD_LEGACY.keys())
def test_damaged_older_files(data, tmp_path):
    path = tmp_path / "bad.dat"
    path.write_bytes(data)
    with pytest.raises(FormatError) as caught:
        load(path)
    assert "\n" not in caught.value.message


ONES = np.ones(4, np.float32)
BAD = {
    "a model": (
        {"general.type": "model", "general.architecture": "llama"},
        {"x.in_sum2": ONES, "x.counts": ONES},
    ),
    "nothing": ({"general.type": "imatrix"}, {}),
    "no counts": ({}, {"x.in_sum2": ONES}),
    "no sums": ({}, {"x.counts": ONES, "y.in_sum2": ONES, "y.counts": ONES}),
    "a stray": ({}, {"x.in_sum2": ONES, "x.counts": ONES[:1], "y.weight": ONES}),
    "F16": ({}, {"x.in_sum2": ONES.astype(np.float16), "x.counts": ONES[:1]}),
    "three counts": ({}, {"x.in_sum2": ONES, "x.counts": ONES[:3]}),
    "infinite": ({}, {"x.in_sum2": ONES * np.inf, "x.counts": ONES[:1]}),
    "negative": ({}, {"x.in_sum2": -ONES, "x.counts": ONES[:1]}),
    "count not finite": ({}, {"x.in_sum2": ONES, "x.counts": ONES[:1] * np.nan}),
    "count negative": ({}, {"x.in_sum2": ONES, "x.counts": -ONES[:1]}),
    "chunks are text": ({"imatrix.chunk_count": "many"}, {"x.in_sum2": ONES, "x.counts": ONES[:1]}),
}


@pytest.mark.parametrize(("metadata", "arrays"), BAD.values(), ids=BAD.keys())
def test_damaged_files(metadata, arrays, tmp_path):
    tensors = [Tensor.from_array(name, array) for name, array in arrays.items()]
    path = gguf.write(tmp_path / "bad.gguf", metadata, tensors)
    with pytest.raises(FormatError):
        load(path)


def test_nothing_there(tmp_path):
    with pytest.raises(NotFoundError):
        load(tmp_path / "x.gguf")


@pytest.mark.parametrize("old", [True, False])
def test_any_bytes(old, tmp_path):
    path = tmp_path / "fuzzed"
    data = save(tmp_path / "i.gguf", made()).read_bytes()
    if old:
        data = legacy(
            [(b"blk.0.attn_q.weight", 7, range(8)), (b"x", 7, range(4))], struct.pack("<ii", 7, 1) + b"w"
        )

    @settings(max_examples=200, deadline=2000)
    @given(st.lists(st.tuples(st.integers(0, len(data) - 1), st.binary(max_size=8)), min_size=1, max_size=3))
    def run(changes):
        out = bytearray(data)
        for position, put in changes:
            out[position : position + max(len(put), 1)] = put
        path.write_bytes(out)
        try:
            load(path).digest  # noqa: B018
        except TeraziError as error:
            text = error.message
        else:
            text = ""
        assert "\n" not in text

    run()


def test_merging_weighs_by_tokens():
    first, second = made(0), made(1)
    both = merge([first, second])
    for name in first:
        squares = first.sums[name].squares.astype(np.float64) + second.sums[name].squares
        assert np.allclose(both.sums[name].squares, squares, rtol=1e-6)
        assert np.array_equal(both.sums[name].counts, first.sums[name].counts + second.sums[name].counts)
    assert (both.chunks, both.datasets) == (4, ("a.txt", "a.txt"))


def test_merging_an_old_file_with_one_count_for_all_experts():
    old = made(sums={"blk.0.ffn_up_exps.weight": Sums(np.ones((1, 96), np.float32) * 512, np.array([512]))})
    both = merge([made(), old])
    assert both.sums["blk.0.ffn_up_exps.weight"].counts.tolist() == [1212, 512, 1812]
    assert both.sums["blk.0.ffn_up_exps.weight"].squares.shape == (3, 32)
    assert not both.unrouted


def test_merging_other_models_is_refused():
    other = made(sums={"blk.0.attn_q.weight": Sums(np.ones((1, 32), np.float32), np.array([512]))})
    with pytest.raises(UsageError, match=r"blk\.0\.attn_q\.weight has 64 columns in one file and 32"):
        merge([made(), other])


def test_statistics_are_those_of_llama_imatrix():
    """Its formulas (``compute_statistics``), element by element."""
    calibration = made()
    squares = calibration.sums["blk.1.attn_q.weight"].squares
    squares[0, :5] = 0
    found = {entry.name: entry for entry in statistics(calibration)}
    means = [float(value) / 1024 for value in squares[0]]
    total = sum(means)
    entropy = -sum(v / total * np.log2(v / total) for v in means if v > 0)
    entry = found["blk.1.attn_q.weight"]
    assert entry.total == pytest.approx(total)
    assert entry.mean == pytest.approx(total / 64)
    assert (entry.lowest, entry.highest) == (0, pytest.approx(max(means)))
    assert entry.zero_columns == 5
    assert entry.entropy == pytest.approx(entropy)
    assert entry.evenness == pytest.approx(entropy / 6)
    before = calibration.sums["blk.0.attn_q.weight"].squares[0].astype(float)
    here = squares[0].astype(float)
    cosine = before @ here / np.linalg.norm(before) / np.linalg.norm(here)
    assert entry.similarity == pytest.approx(cosine)
    assert found["blk.0.attn_q.weight"].similarity is None
    experts = found["blk.0.ffn_up_exps.weight"]
    assert (experts.experts, experts.unrouted, experts.tokens) == (3, 1, 1300)
    assert [entry.total for entry in statistics(calibration)] == sorted(
        (entry.total for entry in found.values()), reverse=True
    )
