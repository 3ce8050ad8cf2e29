"""The declared C interface is the one of the shared object; anything else is refused."""

import ctypes
import platform

import pytest

from terazi.errors import EngineError
from terazi.runtime.llamacpp import library


@pytest.fixture
def fresh():
    """Undo the cache of `load`, before and after."""
    library.load.cache_clear()
    yield
    library.load.cache_clear()


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="calls by the x86-64 convention")
@pytest.mark.parametrize(
    ("name", "struct"),
    [
        ("llama_model_default_params", library.ModelParameters),
        ("llama_context_default_params", library.ContextParameters),
    ],
)
def test_structs_end_where_llama_cpp_stops_writing(name, struct):
    """On x86-64 the place for the result is a hidden first argument: see which bytes change there."""
    function = getattr(ctypes.CDLL(library.load()._name), name)
    function.restype, function.argtypes = None, [ctypes.c_void_p]
    size = ctypes.sizeof(struct)
    written = set()
    for filler in (0xAA, 0x55):
        place = (ctypes.c_uint8 * (size + 64))(*[filler] * (size + 64))
        function(place)
        written |= {offset for offset, byte in enumerate(place) if byte != filler}
    _, last, kind = max((getattr(struct, field).offset, field, kind) for field, kind, *_ in struct._fields_)
    assert max(written) == getattr(struct, last).offset + ctypes.sizeof(kind) - 1


def test_another_version_is_refused(fresh, monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2027.1.1")
    with pytest.raises(EngineError, match=r"2027\.1\.1 is installed") as caught:
        library.load()
    assert library.PINNED in caught.value.hint


@pytest.mark.parametrize(
    ("table", "field"),
    [("_MODEL_DEFAULTS", "split_mode"), ("_CONTEXT_DEFAULTS", "n_batch"), ("_CONTEXT_DEFAULTS", "swa_full")],
)
def test_another_layout_is_refused(fresh, monkeypatch, table, field):
    changed = getattr(library, table) | {field: 77}
    monkeypatch.setattr(library, table, changed)
    with pytest.raises(EngineError, match=field):
        library.load()


def test_a_shifted_struct_shows():
    """One field too few moves the rest: the comparison must see it."""
    fields = [entry for entry in library.ContextParameters._fields_ if entry[0] != "n_rs_seq"]
    shifted = type("Shifted", (ctypes.Structure,), {"_fields_": fields})
    defaults = library.load().llama_context_default_params()
    misread = shifted.from_buffer_copy(bytes(defaults)[: ctypes.sizeof(shifted)])
    with pytest.raises(EngineError, match="n_outputs_max"):
        library._compare("llama_context_params", misread, library._CONTEXT_DEFAULTS)


def test_a_missing_function_is_refused(fresh, monkeypatch):
    monkeypatch.setitem(library._SIGNATURES, "llama_no_such_function", (None, []))
    with pytest.raises(EngineError, match="llama_no_such_function"):
        library.load()
