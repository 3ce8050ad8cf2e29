"""Packing of ONNX Runtime's block codes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from terazi.codecs.onnx import pack, unpack


@pytest.mark.parametrize("bits", [2, 4, 8])
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_unpacking_undoes_packing(bits, data):
    shape = data.draw(arrays.array_shapes(min_dims=1, max_dims=3, max_side=17))
    codes = data.draw(arrays.arrays(np.uint8, shape, elements=st.integers(0, (1 << bits) - 1)))
    packed = pack(codes, bits)
    assert packed.shape[-1] == -(-shape[-1] * bits // 8)
    assert np.array_equal(unpack(packed, bits, shape[-1]), codes)


def test_first_code_is_in_the_lowest_bits():
    assert pack(np.array([1, 2], np.uint8), 4).tolist() == [0x21]
    assert pack(np.array([1, 2, 3, 0], np.uint8), 2).tolist() == [0b00111001]
