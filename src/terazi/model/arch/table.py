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
    "Back",
    "Change",
    "Field",
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


@dataclass(frozen=True, slots=True)
class Change:
    """Makes the weights that llama.cpp expects from those that Hugging Face stores, and undoes it."""

    make: Callable[[Tensor, Source], Tensor]
    undo: Callable[[Tensor, Source], Tensor] | None = None


@dataclass(frozen=True, slots=True)
class To:
    """A tensor's GGUF name (``{}`` is the layer) and, where its weights differ, how they are made.

    ``place`` orders sources that share a name and whose own names have no number for it.
    """

    name: str
    change: Change
    place: int | None = None


@dataclass(frozen=True, slots=True)
class Back:
    """What a Hugging Face checkpoint needs beyond the tables.

    ``wrapper`` is the prefix of all tensors but the output; ``settings`` adds to the configuration found, and
    ``extra`` makes tensors under Hugging Face's names from it that stand in where the file has none.
    """

    model_type: str
    wrapper: str = "model."
    settings: Callable[[Settings], Settings] = field(default=lambda settings: {})
    extra: Callable[[Settings], Iterable[Tensor]] = field(default=lambda settings: ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """One GGUF architecture and the Hugging Face classes that become it.

    ``parameters`` maps the short GGUF key (``attention.head_count``) to its reader. ``tensors`` maps the
    Hugging Face name, without wrapper prefixes such as ``model.`` and without ``.weight``/``.bias``, each
    number written ``{}`` (or only the first, where a number tells names apart), to one GGUF name or several.
    ``None`` means that llama.cpp does without it. When several sources share a GGUF name (experts), they are
    stacked along a new first axis.

    ``extra`` makes tensors that the checkpoint lacks from the configuration, ``full_precision`` are GGUF
    names that must be F32, ``ignored`` are prefixes of heads that llama.cpp does not use, ``tokenizer`` adds
    to the tokenizer's keys. ``when`` tells tables of the same class apart. ``expects`` lists settings that
    llama.cpp's graph fixes, with the values it takes: anything else would give wrong answers and is refused.
    ``dense`` names the layers that may follow the pooling of vectors (sentence-transformers' Dense modules).
    With ``back``, GGUF files of this architecture can become a checkpoint of the first of ``classes``.
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
    dense: tuple[str, ...] = ()
    back: Back | None = None


@dataclass(frozen=True, slots=True)
class Field:
    """Reads the first of several settings as one GGUF type. The first name is the one to write back.

    ``null`` is what GGUF says where the configuration says null, which is otherwise as if it said nothing.
    """

    names: tuple[str, ...]
    check: Callable[[str, Any], Any]
    default: Any = None
    required: bool = False
    null: Any = None

    def __call__(self, settings: Settings) -> Any:
        """Read and check the value; see `Reader`."""
        found = next((name for name in self.names if settings.get(name) is not None), None)
        if found is not None:
            return self.check(found, settings[found])
        if self.null is not None and any(name in settings for name in self.names):
            return self.check(self.names[0], self.null)
        if self.default is not None:
            return self.check(self.names[0], self.default)
        if self.required:
            raise FormatError("config.json", f"has no {' or '.join(self.names)}")
        return None


def _count(name: str, value: Any) -> np.uint32:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 31:
        raise FormatError("config.json", f"{name} is {str(value)[:80]!r}, not a count")
    return np.uint32(value)


def _number(name: str, value: Any) -> np.float32:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FormatError("config.json", f"{name} is {str(value)[:80]!r}, not a number")
    return np.float32(value)


def integer(*names: str, default: int | None = None, optional: bool = False) -> Field:
    """Read the first of ``names`` as a count; required unless ``default`` is given or it is ``optional``."""
    return Field(names, _count, default, not optional)


def real(*names: str, default: float | None = None, null: float | None = None) -> Field:
    """Read the first of ``names`` as float32; the key is left out when there is none and no ``default``."""
    return Field(names, _number, default, null=null)


def flag(name: str) -> Field:
    """Read ``name`` as true or false; the key is left out when it is missing."""
    return Field((name,), lambda name, value: bool(value))


def text(name: str) -> Field:
    """Read ``name`` as a word; the key is left out when it is missing."""
    return Field((name,), lambda name, value: str(value))


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
