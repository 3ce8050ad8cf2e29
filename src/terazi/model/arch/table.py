"""What an architecture is: a table of hyperparameters and a table of tensor names, and how they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from terazi.errors import FormatError
from terazi.model.tensor import Tensor

__all__ = [
    "Architecture",
    "Change",
    "Reader",
    "Source",
    "To",
    "constant",
    "flag",
    "head_size",
    "integer",
    "layers_of_kind",
    "real",
    "text",
]

Settings = Mapping[str, Any]
"""A ``config.json`` whose ``text_config`` has been lifted to the top."""

Reader = Callable[[Settings], Any]
"""Reads one GGUF value (a NumPy scalar or array, ``bool``, ``str``, list) from a configuration.

``None`` leaves the key out."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a tensor stands: the configuration, and the numbers in its Hugging Face name, layer first."""

    settings: Settings
    numbers: tuple[int, ...]

    @property
    def layer(self) -> int:
        """Index of the block."""
        return self.numbers[0]


Change = Callable[[Tensor, Source], Tensor]
"""Makes the weights that llama.cpp expects from those that Hugging Face stores."""


@dataclass(frozen=True, slots=True)
class To:
    """A tensor's GGUF name (``{}`` is the layer) and, where its weights differ, how they are made."""

    name: str
    change: Change


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """One GGUF architecture and the Hugging Face classes that become it.

    ``parameters`` maps the short GGUF key (``attention.head_count``) to its reader. ``tensors`` maps the
    Hugging Face name, without wrapper prefixes such as ``model.`` and without ``.weight``/``.bias``, each
    number written ``{}``, to one GGUF name or several. ``None`` means that llama.cpp does without it. When
    several sources share a GGUF name (experts), they are stacked along a new first axis.

    ``extra`` makes tensors from the configuration alone, ``full_precision`` are GGUF names that must be F32,
    ``ignored`` are prefixes of heads that llama.cpp does not use, ``tokenizer`` adds to the tokenizer's keys.
    ``when`` tells tables of the same class apart. ``expects`` lists settings that llama.cpp's graph fixes,
    with the values it takes: anything else would give wrong answers and is refused.
    """

    name: str
    classes: tuple[str, ...]
    parameters: Mapping[str, Reader]
    tensors: Mapping[str, str | To | tuple[str | To, ...] | None]
    extra: Callable[[Settings], Iterable[Tensor]] = field(default=lambda settings: ())
    full_precision: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    tokenizer: Mapping[str, Reader] = field(default_factory=dict)
    when: Callable[[Settings], bool] = field(default=lambda settings: True)
    expects: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)


def _first(settings: Settings, names: tuple[str, ...]) -> Any:
    return next((settings[name] for name in names if settings.get(name) is not None), None)


def integer(*names: str, default: int | None = None, optional: bool = False, minus: int = 0) -> Reader:
    """Read the first of ``names`` as a count; required unless ``default`` is given or it is ``optional``."""

    def read(settings: Settings) -> np.uint32 | None:
        value = _first(settings, names)
        if value is None:
            value = default
        if value is None:
            if optional:
                return None
            raise FormatError("config.json", f"has no {' or '.join(names)}")
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value - minus < 1 << 31:
            raise FormatError("config.json", f"{names[0]} is {value!r}, not a count")
        return np.uint32(value - minus)

    return read


def real(*names: str, default: float | None = None) -> Reader:
    """Read the first of ``names`` as float32; the key is left out when there is none and no ``default``."""

    def read(settings: Settings) -> np.float32 | None:
        value = _first(settings, names)
        if value is None:
            value = default
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise FormatError("config.json", f"{names[0]} is {value!r}, not a number")
        return np.float32(value)

    return read


def flag(name: str) -> Reader:
    """Read ``name`` as true or false; the key is left out when it is missing."""
    return lambda settings: None if settings.get(name) is None else bool(settings[name])


def text(name: str) -> Reader:
    """Read ``name`` as a word; the key is left out when it is missing."""
    return lambda settings: None if settings.get(name) is None else str(settings[name])


def constant(value: Any) -> Reader:
    """Always ``value``: something the Hugging Face implementation fixes in code."""
    return lambda settings: value


def layers_of_kind(*kinds: str) -> Reader:
    """One truth value per layer: whether ``layer_types`` has one of ``kinds`` there."""

    def read(settings: Settings) -> np.ndarray | None:
        listed = settings.get("layer_types")
        if listed is None:
            return None
        count = int(integer("num_hidden_layers")(settings))
        if not isinstance(listed, list) or len(listed) != count:
            raise FormatError("config.json", f"layer_types does not name {count} layers")
        return np.array([kind in kinds for kind in listed])

    return read


def head_size(settings: Settings) -> np.uint32:
    """Width of one attention head: ``head_dim`` when given, otherwise the embedding shared by the heads."""
    if settings.get("head_dim") is not None:
        return integer("head_dim")(settings)
    width = int(integer("hidden_size", "n_embd")(settings))
    heads = int(integer("num_attention_heads", "n_head")(settings))
    if not heads or width % heads:
        raise FormatError("config.json", f"{heads} attention heads do not share a width of {width}")
    return np.uint32(width // heads)
