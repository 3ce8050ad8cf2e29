"""Nodes of llama.cpp's graph while it runs: ``struct ggml_tensor`` read by offset, its data as arrays.

The layout follows ``ggml/include/ggml.h``. `operations` builds small tensors through the library's own
functions and compares every field that is read here, so a different layout is an error and not garbage.
"""

from __future__ import annotations

import ctypes
from ctypes import c_bool, c_char, c_char_p, c_int, c_int32, c_int64, c_size_t, c_void_p
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from terazi.errors import EngineError

if TYPE_CHECKING:
    from ctypes import CDLL

__all__ = ["F32", "I32", "Node", "Operations", "array", "node", "operations", "weight_name"]

F32, I32 = 0, 26  # ids of tensor types, as in files
_AXES, _SOURCES, _NAME_BYTES, _PARAMETER_BYTES = 4, 10, 64, 64


class Node(ctypes.Structure):
    """``struct ggml_tensor``: ``ne`` elements and ``nb`` bytes per step along each axis, innermost first."""

    _fields_: ClassVar = [
        ("type", c_int32),
        ("buffer", c_void_p),
        ("ne", c_int64 * _AXES),
        ("nb", c_size_t * _AXES),
        ("op", c_int32),
        ("parameters", c_char * _PARAMETER_BYTES),
        ("flags", c_int32),
        ("src", c_void_p * _SOURCES),
        ("view_src", c_void_p),
        ("view_offs", c_size_t),
        ("data", c_void_p),
        ("name", c_char * _NAME_BYTES),
    ]


class Operations(NamedTuple):
    """Numbers of the two operations that multiply weights with activations."""

    multiply: int
    multiply_experts: int


def node(pointer: int) -> Node:
    """Return the tensor at an address."""
    return Node.from_address(pointer)


def array(tensor: Node) -> np.ndarray:
    """View a tensor's data with its strides, outermost axis first: float32 or int32[ne3, ne2, ne1, ne0].

    The view is valid while llama.cpp waits in the callback.
    """
    kind = {F32: np.dtype(np.float32), I32: np.dtype(np.int32)}[tensor.type]
    shape, strides = tuple(tensor.ne)[::-1], tuple(tensor.nb)[::-1]
    span = sum((size - 1) * step for size, step in zip(shape, strides, strict=True)) + kind.itemsize
    buffer = (ctypes.c_char * span).from_address(tensor.data)
    return np.ndarray(shape, kind, buffer, strides=strides)


def weight_name(tensor: Node) -> str:
    """Return a weight's name in the file: schedulers write it as ``CPU#blk.0.attn_k.weight#0``."""
    name = tensor.name.decode(errors="replace")
    return name.split("#")[1] if "#" in name else name


class _InitParameters(ctypes.Structure):
    """``struct ggml_init_params``."""

    _fields_: ClassVar = [("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool)]


_SIGNATURES = {
    "ggml_init": (c_void_p, [_InitParameters]),
    "ggml_free": (None, [c_void_p]),
    "ggml_new_tensor_3d": (c_void_p, [c_void_p, c_int, c_int64, c_int64, c_int64]),
    "ggml_new_tensor_2d": (c_void_p, [c_void_p, c_int, c_int64, c_int64]),
    "ggml_view_2d": (c_void_p, [c_void_p, c_void_p, c_int64, c_int64, c_size_t, c_size_t]),
    "ggml_set_name": (c_void_p, [c_void_p, c_char_p]),
    "ggml_mul_mat": (c_void_p, [c_void_p, c_void_p, c_void_p]),
    "ggml_mul_mat_id": (c_void_p, [c_void_p, c_void_p, c_void_p, c_void_p]),
    "ggml_get_data": (c_void_p, [c_void_p]),
    "ggml_op_name": (c_char_p, [c_int]),
}


def operations(library: CDLL) -> Operations:
    """Check the layout against tensors made by the library. Raises `EngineError` when a field differs."""
    try:
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except AttributeError as error:
        raise EngineError(f"this build of llama.cpp lacks {error}") from None
    context = library.ggml_init(_InitParameters(1 << 16, None, False))
    if not context:
        raise EngineError("ggml cannot allocate memory")
    try:
        return _checked(library, context)
    finally:
        library.ggml_free(context)


def _checked(library: CDLL, context: int) -> Operations:
    weight = library.ggml_new_tensor_3d(context, F32, 8, 5, 4)
    inputs = library.ggml_new_tensor_3d(context, F32, 8, 3, 7)
    chosen = library.ggml_new_tensor_2d(context, I32, 4, 7)
    ids = library.ggml_view_2d(context, chosen, 3, 7, 16, 0)
    library.ggml_set_name(weight, b"CPU#blk.0.w.weight#0")
    product = library.ggml_mul_mat(context, weight, weight)
    experts = library.ggml_mul_mat_id(context, weight, inputs, ids)
    seen = node(weight)
    viewed = node(ids)
    facts = {
        "type": (seen.type, node(chosen).type) == (F32, I32),
        "ne": tuple(seen.ne) == (8, 5, 4, 1),
        "nb": tuple(seen.nb) == (4, 32, 160, 640) and tuple(viewed.nb)[:2] == (4, 16),
        "name": weight_name(seen) == "blk.0.w.weight",
        "src": tuple(node(experts).src)[:4] == (weight, inputs, ids, None)
        and tuple(node(product).src)[:3] == (weight, weight, None),
        "data": seen.data == library.ggml_get_data(weight) and bool(seen.data),
        "view_src": viewed.view_src == chosen and not seen.view_src,
        "op": library.ggml_op_name(node(product).op) == b"MUL_MAT"
        and library.ggml_op_name(node(experts).op) == b"MUL_MAT_ID",
    }
    if wrong := [field for field, right in facts.items() if not right]:
        raise EngineError(
            f"the layout of ggml_tensor is not the declared one ({', '.join(wrong)})",
            hint="reinstall the pinned version of xllamacpp",
        )
    return Operations(node(product).op, node(experts).op)
