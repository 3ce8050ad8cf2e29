"""What is written is read back: values with their types, tensors with their bytes, sizes as promised."""

import numpy as np
import pytest

from terazi.errors import ExistsError, UsageError
from terazi.formats import gguf, open_model
from terazi.model import Tensor


def test_a_real_file_is_rewritten_byte_for_byte(smollm2, tmp_path):
    model = open_model(smollm2)
    tensors = list(model.tensors.values())
    copy = gguf.write(tmp_path / "copy.gguf", model.metadata, tensors)
    assert copy.read_bytes() == smollm2.read_bytes()
    assert copy.stat().st_size == gguf.file_size(model.metadata, tensors)


def test_split_files_are_read_as_one(smollm2, tmp_path):
    model = open_model(smollm2)
    tensors = list(model.tensors.values())
    split = gguf.split_by_size(tensors, 30_000_000)
    first = gguf.write(tmp_path / "parts.gguf", model.metadata, tensors, split=split)
    assert first.name == "parts-00001-of-00004.gguf"
    again = open_model(tmp_path / "parts-00003-of-00004.gguf")
    assert [file.name for file in again.files] == [f"parts-0000{n}-of-00004.gguf" for n in (1, 2, 3, 4)]
    assert sum(file.stat().st_size for file in again.files) == gguf.file_size(
        model.metadata, tensors, split=split
    )
    assert again.metadata.keys() == model.metadata.keys()
    assert list(again.tensors) == list(model.tensors)
    for name, tensor in model.tensors.items():
        assert np.array_equal(again.tensors[name].encoded(), tensor.encoded())
