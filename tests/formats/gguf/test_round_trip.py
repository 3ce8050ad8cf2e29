"""What is written is read back: values with their types, tensors with their bytes, sizes as promised."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from terazi.dtypes import TYPES
from terazi.errors import ExistsError, NotFoundError, TeraziError, UsageError
from terazi.formats import gguf, open_model
from terazi.formats.gguf import writer
from terazi.model import Tensor

ARCHITECTURE = {"general.architecture": "llama"}
NUMBERS = ["u1", "i1", "u2", "i2", "u4", "i4", "f4", "u8", "i8", "f8"]


def test_a_real_file_is_rewritten_byte_for_byte(smollm2, tmp_path):
    model = open_model(smollm2)
    tensors = list(model.tensors.values())
    copy = gguf.write(tmp_path / "copy.gguf", model.metadata, tensors)
    assert copy.read_bytes() == smollm2.read_bytes()
    assert copy.stat().st_size == gguf.file_size(model.metadata, tensors)


def test_what_a_real_file_says(smollm2):
    model = open_model(smollm2)
    assert (model.license, model.variant, model.parameters) == ("apache-2.0", "instruct", 134515008)
    assert model.config.head_counts_kv == (3,) * 30
    assert (model.config.key_length, model.config.vocabulary_size) == (64, 49152)
    assert model.tokenizer
    assert (model.tokenizer.kind, model.tokenizer.pre) == ("gpt2", "smollm")
    assert model.tokenizer.special["bos"] == 1


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


scalars = st.one_of(
    st.booleans(),
    st.text(max_size=20),
    st.sampled_from(NUMBERS).flatmap(lambda kind: hnp.from_dtype(np.dtype(kind))),
)
arrays = st.one_of(
    st.lists(st.text(max_size=8), max_size=5),
    st.sampled_from([*NUMBERS, "?"]).flatmap(lambda kind: hnp.arrays(kind, st.integers(0, 5))),
)


@given(st.dictionaries(st.text(min_size=1, max_size=30), scalars | arrays, max_size=6))
def test_values_keep_their_types(tmp_path_factory, metadata):
    path = tmp_path_factory.mktemp("values") / "v.gguf"
    metadata = {key: value for key, value in metadata.items() if not key.startswith("split.")}
    gguf.write(path, metadata, [])
    found = gguf.read_contents(path).metadata
    assert list(found) == list(metadata)
    for key, value in metadata.items():
        assert type(found[key]) is type(value)
        if isinstance(value, np.ndarray | np.generic):
            assert found[key].dtype == value.dtype
            assert found[key].tobytes() == value.tobytes()
        else:
            assert found[key] == value


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (5, np.uint32),
        (-5, np.int32),
        (1 << 40, np.uint64),
        (-(1 << 40), np.int64),
        (0.5, np.float32),
        ([1, -2], np.int32),
        ([1 << 40], np.int64),
        ([0.5, 1], np.float32),
        ([True, False], np.bool_),
    ],
)
def test_plain_numbers_get_the_smallest_usual_type(value, kind, tmp_path):
    gguf.write(tmp_path / "v.gguf", {"k": value}, [])
    assert gguf.read_contents(tmp_path / "v.gguf").metadata["k"].dtype == kind


@pytest.mark.parametrize(
    "value", [None, {}, 1 << 64, [1, "a"], [[1]], np.ones((2, 2)), np.ones(2, "c8"), "\ud800"]
)
def test_values_without_a_gguf_type(value, tmp_path):
    with pytest.raises(UsageError):
        gguf.write(tmp_path / "v.gguf", {"k": value}, [])
    assert list(tmp_path.iterdir()) == []


def test_the_reference_package_reads_every_type_it_knows(tmp_path):
    """The others must come out as the same bytes: gguf 0.19 lacks Q2_0 and has an old size for Q8_1."""
    reference = pytest.importorskip("gguf")
    generator = np.random.default_rng(0)
    known = {kind.name for kind in reference.GGMLQuantizationType}
    tensors = []
    for kind in TYPES.values():
        if kind.name in known and not kind.activation:
            data = generator.integers(0, 255, (6, kind.row_bytes(512)), np.uint8)
            tensors.append(
                Tensor(
                    name=f"{kind.name}.weight",
                    shape=(2, 3, 512),
                    type=kind.name,
                    read=lambda a, b, d=data: d[a:b],
                )
            )
    metadata = ARCHITECTURE | {
        "k": np.float32(0.5),
        "list": ["é", ""],
        "numbers": np.arange(3, dtype=np.int16),
    }
    path = gguf.write(tmp_path / "all.gguf", metadata, tensors)
    reader = reference.GGUFReader(path)
    assert len(reader.tensors) == len(tensors) > 30
    for found, tensor in zip(reader.tensors, tensors, strict=True):
        assert (found.name, found.tensor_type.name) == (tensor.name, tensor.type)
        assert found.shape.tolist() == list(tensor.shape[::-1])
        assert found.data.tobytes() == tensor.encoded().tobytes()
    assert reader.fields["k"].contents() == 0.5
    assert reader.fields["list"].contents() == ["é", ""]
    assert reader.fields["numbers"].contents() == [0, 1, 2]


def test_files_of_the_reference_package_are_read(tmp_path):
    reference = pytest.importorskip("gguf")
    path = tmp_path / "reference.gguf"
    writer = reference.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_array("list", ["a", "b"])
    writer.add_array("flags", [True, False])
    data = np.arange(64, dtype=np.float16).reshape(2, 32)
    writer.add_tensor("token_embd.weight", data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model = open_model(path)
    assert (model.config.architecture, model.config.block_count) == ("llama", 2)
    assert model.metadata["list"] == ["a", "b"]
    assert model.metadata["flags"].tolist() == [True, False]
    assert np.array_equal(model.tensors["token_embd.weight"].encoded().view(np.float16), data)


def derived(name, rows, calls, type="F32", columns=8):
    """A tensor whose rows are computed; ``calls`` collects the ranges that are asked for."""

    def read(start, stop):
        calls.append((name, start, stop, threading.current_thread().name))
        values = np.arange(start, stop, dtype=np.float32)[:, None].repeat(columns, 1)
        return values.view(np.uint8)

    return Tensor(name=name, shape=(rows, columns), type=type, read=read)


def test_rows_are_computed_in_slabs_ahead_of_writing(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "_SLAB_BYTES", 4 * 8 * 10)
    calls, reports = [], []
    path = gguf.write(
        tmp_path / "derived.gguf",
        ARCHITECTURE,
        [derived("a", 25, calls), derived("b", 3, calls)],
        progress=lambda task, done, total, unit="": reports.append((done, total)),
    )
    assert [call[:3] for call in calls] == [("a", 0, 10), ("a", 10, 20), ("a", 20, 25), ("b", 0, 3)]
    assert all(call[3].startswith("read-ahead") for call in calls)
    assert reports[-1] == (path.stat().st_size, path.stat().st_size)
    assert open_model(path).tensors["a"].rows()[:, 0].tolist() == list(range(25))


def test_several_files_in_one_pass(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "_SLAB_BYTES", 4 * 8 * 10)
    calls = []
    outputs = [
        gguf.Output(
            path=tmp_path / f"{name}.gguf",
            metadata=ARCHITECTURE | {"k": name},
            tensors=[derived("a", 15, calls), derived("b", 5, calls)],
        )
        for name in ("one", "two")
    ]
    assert gguf.write_many(outputs) == [tmp_path / "one.gguf", tmp_path / "two.gguf"]
    assert [call[:3] for call in calls] == [
        *[("a", 0, 10)] * 2,
        *[("a", 10, 15)] * 2,
        *[("b", 0, 5)] * 2,
    ]
    assert open_model(tmp_path / "two.gguf").metadata["k"] == "two"


def test_a_failing_tensor_leaves_nothing_behind(tmp_path):
    def fail(start, stop):
        raise TeraziError("tensor b is not finite")

    bad = Tensor(name="b", shape=(2, 8), type="F32", read=fail)
    with pytest.raises(TeraziError, match="not finite"):
        gguf.write(tmp_path / "x.gguf", ARCHITECTURE, [derived("a", 2, []), bad])
    assert list(tmp_path.iterdir()) == []


def test_existing_files_are_kept(tmp_path):
    path = tmp_path / "x.gguf"
    path.write_text("mine")
    with pytest.raises(ExistsError):
        gguf.write(path, ARCHITECTURE, [])
    assert path.read_text() == "mine"
    gguf.write(path, ARCHITECTURE, [], force=True)
    assert gguf.detect(path)


def test_two_tensors_of_one_name(tmp_path):
    with pytest.raises(UsageError, match="same name"):
        gguf.write(tmp_path / "x.gguf", ARCHITECTURE, [derived("a", 2, []), derived("a", 2, [])])


def test_no_room(tmp_path):
    huge = Tensor(name="a", shape=(1 << 40, 1 << 10), type="F32", read=lambda start, stop: np.empty(0))
    with pytest.raises(TeraziError, match="TB are needed"):
        gguf.write(tmp_path / "x.gguf", ARCHITECTURE, [huge])


def test_other_alignment(tmp_path):
    metadata = ARCHITECTURE | {"general.alignment": np.uint32(256)}
    path = gguf.write(tmp_path / "x.gguf", metadata, [derived("a", 3, []), derived("b", 3, [])])
    assert path.stat().st_size % 256 == 0
    assert open_model(path).tensors["b"].rows()[:, 0].tolist() == [0, 1, 2]


def test_a_directory_with_one_model(tmp_path):
    gguf.write(tmp_path / "x.gguf", ARCHITECTURE, [derived("a", 3, [])])
    assert open_model(tmp_path).path == tmp_path / "x.gguf"
    gguf.write(tmp_path / "y.gguf", ARCHITECTURE, [derived("a", 3, [])])
    with pytest.raises(TeraziError, match="2 models"):
        open_model(tmp_path)


def test_nothing_there(tmp_path):
    with pytest.raises(NotFoundError):
        open_model(tmp_path / "nothing.gguf")
