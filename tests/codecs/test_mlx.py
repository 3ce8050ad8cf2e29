"""MLX encodings against mx.quantize itself, byte for byte."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from terazi.codecs.mlx import MODES, decode, encode
from terazi.errors import UsageError

mx = pytest.importorskip("mlx.core", reason="mlx is not installed on this platform")

KINDS = [("affine", bits, group) for bits in (2, 3, 4, 5, 6, 8) for group in (32, 64, 128)]
KINDS += [("mxfp4", 4, 32), ("nvfp4", 4, 16), ("mxfp8", 8, 32)]


def rows(kind: str, dtype: type) -> np.ndarray:
    generator = np.random.default_rng(3)
    x = {
        "normal": generator.normal(size=(16, 256)) * 0.02,
        "heavy tails": generator.standard_t(2, (16, 256)) * 0.05,
        "zero": np.zeros((2, 256)),
        "constant": np.full((2, 256), 0.3),
        "one-signed": np.abs(generator.normal(size=(8, 256))),
        "mixed": np.concatenate([np.zeros((1, 256)), generator.normal(size=(3, 256)) * 100]),
        "tiny": generator.normal(size=(4, 256)) * 1e-6,
        "grid": generator.integers(-8, 8, (8, 256)) * 0.25,
    }[kind]
    return x.astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(
    "data", ["normal", "heavy tails", "zero", "constant", "one-signed", "mixed", "tiny", "grid"]
)
@pytest.mark.parametrize(("mode", "bits", "group"), KINDS)
def test_same_bytes_as_mlx(mode, bits, group, data, dtype):
    x = rows(data, dtype)
    ours = encode(x, mode, bits=bits, group_size=group)
    theirs = mx.quantize(mx.array(x), group_size=group, bits=bits, mode=mode, stream=mx.cpu)
    for name, array in zip(("weight", "scales", "biases"), theirs, strict=False):
        expected = np.array(array)
        assert ours[name].dtype == expected.dtype
        assert np.array_equal(ours[name], expected), name
    decoded = decode(**ours, mode=mode, bits=bits, group_size=group)
    wide = [theirs[0], *(part.astype(mx.float32) if mode == "affine" else part for part in theirs[1:])]
    options = {} if mode == "affine" else {"dtype": mx.float32}
    expected = np.array(mx.dequantize(*wide, group_size=group, bits=bits, mode=mode, **options))
    assert np.allclose(decoded, expected, rtol=1e-6, atol=1e-6 * np.abs(x).max())


@given(seed=st.integers(0, 1 << 30), scale=st.floats(1e-4, 1e4), kind=st.sampled_from(KINDS))
@settings(max_examples=60, deadline=None)
def test_same_bytes_on_any_rows(seed, scale, kind):
    mode, bits, group = kind
    x = (np.random.default_rng(seed).normal(size=(4, 256)) * scale).astype(np.float32)
    theirs = mx.quantize(mx.array(x), group_size=group, bits=bits, mode=mode, stream=mx.cpu)
    ours = encode(x, mode, bits=bits, group_size=group)
    assert np.array_equal(ours["weight"], np.array(theirs[0]))
    assert np.array_equal(ours["scales"], np.array(theirs[1]))


@pytest.mark.parametrize(
    ("mode", "bits", "group"), [("affine", 7, 64), ("affine", 4, 16), ("mxfp4", 8, 32), ("nf4", 4, 64)]
)
def test_what_mlx_does_not_know_is_refused(mode, bits, group):
    with pytest.raises(UsageError):
        encode(np.zeros((1, 256), np.float32), mode, bits=bits, group_size=group)


def test_defaults_are_the_first():
    assert encode(np.zeros((1, 64), np.float32))["weight"].shape == (1, 8)
    assert MODES["affine"].bits[0] == 4
