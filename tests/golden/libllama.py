"""llama.cpp's own quantize, called through ctypes in a build of libllama that the caller names.

Struct layouts are those of ``include/llama.h`` in the llama.cpp of llama-cpp-python 0.3.36.
"""

import ctypes
from pathlib import Path

_STRING, _INT = 3, 0
_TYPE_COUNT = 43


class _Override(ctypes.Structure):
    _fields_ = [("tag", ctypes.c_int), ("key", ctypes.c_char * 128), ("value", ctypes.c_int64 * 16)]


class _Importance(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("data", ctypes.POINTER(ctypes.c_float)),
        ("size", ctypes.c_size_t),
    ]


class _TypeOverride(ctypes.Structure):
    _fields_ = [("pattern", ctypes.c_char_p), ("type", ctypes.c_int)]


class _Parameters(ctypes.Structure):
    _fields_ = [
        ("nthread", ctypes.c_int32),
        ("ftype", ctypes.c_int),
        ("output_tensor_type", ctypes.c_int),
        ("token_embedding_type", ctypes.c_int),
        ("allow_requantize", ctypes.c_bool),
        ("quantize_output_tensor", ctypes.c_bool),
        ("only_copy", ctypes.c_bool),
        ("pure", ctypes.c_bool),
        ("keep_split", ctypes.c_bool),
        ("dry_run", ctypes.c_bool),
        ("imatrix", ctypes.POINTER(_Importance)),
        ("kv_overrides", ctypes.POINTER(_Override)),
        ("tt_overrides", ctypes.POINTER(_TypeOverride)),
        ("prune_layers", ctypes.POINTER(ctypes.c_int32)),
        ("max_buf_size", ctypes.c_size_t),
    ]


_LOG = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


class LibLlama:
    """One loaded libllama; the other libraries of the build must lie beside it."""

    def __init__(self, path):
        self.messages = []
        self._library = ctypes.CDLL(str(path))
        self._log = _LOG(lambda level, text, _: self.messages.append(text.decode(errors="replace")))
        self._library.llama_log_set(self._log, None)
        self._library.llama_backend_init()
        default = self._library.llama_model_quantize_default_params
        default.restype = _Parameters
        self._default = default
        quantize = self._library.llama_model_quantize
        quantize.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(_Parameters)]
        quantize.restype = ctypes.c_uint32
        self._quantize = quantize
        assert self._default().output_tensor_type == _TYPE_COUNT, "another version of llama.cpp"

    def quantize(
        self, source, output, file_type, *, importance=None, overrides=(), info=None, threads=1, **options
    ):
        """Write ``output``; ``importance`` maps names to float32 arrays, ``info`` is what the file says.

        ``overrides`` pairs patterns with type ids; ``options`` are fields of llama_model_quantize_params.
        Raises RuntimeError with what llama.cpp logged.
        """
        parameters = self._default()
        parameters.nthread, parameters.ftype, parameters.allow_requantize = threads, file_type, True
        for name, value in options.items():
            setattr(parameters, name, value)
        if importance is not None:
            rows = (_Importance * (len(importance) + 1))()
            alive = list(importance.items())  # llama.cpp reads the arrays where they are
            for row, (name, values) in zip(rows, alive, strict=False):
                pointer = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
                row.name, row.data, row.size = name.encode(), pointer, values.size
            parameters.imatrix = rows
            parameters.kv_overrides = _overrides(info or {})
        if overrides:
            pairs = [_TypeOverride(pattern.encode(), type) for pattern, type in overrides]
            parameters.tt_overrides = (_TypeOverride * (len(pairs) + 1))(
                *pairs, _TypeOverride(None, _TYPE_COUNT)
            )
        self.messages.clear()
        if self._quantize(str(source).encode(), str(output).encode(), ctypes.byref(parameters)):
            raise RuntimeError("".join(self.messages[-3:]))
        return Path(output)


def _overrides(info):
    """Encode text and whole numbers as the tool does: text of at most 127 bytes, numbers as uint32."""
    rows = (_Override * (len(info) + 1))()
    for row, (key, value) in zip(rows, info.items(), strict=False):
        row.key = key.encode()
        if isinstance(value, str):
            row.tag = _STRING
            ctypes.memmove(row.value, value.encode()[:127] + b"\0", min(len(value.encode()), 127) + 1)
        else:
            row.tag, row.value[0] = _INT, value
    return rows
