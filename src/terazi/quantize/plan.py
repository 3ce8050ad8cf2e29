"""A plan: which type every tensor of one model gets; its exact size is known before anything runs."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import asdict, dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from terazi.dtypes import dtype
from terazi.errors import FormatError, UsageError
from terazi.formats.gguf import detect, file_size, tensor_parts
from terazi.model import Tensor
from terazi.quantize.mixture import Facts, loader_order, role
from terazi.quantize.presets import preset as find_preset
from terazi.quantize.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from terazi.calibrate import Calibration
    from terazi.model import Model

__all__ = ["Entry", "Importance", "Plan", "expert_count", "make_plan", "plain_shape"]

_QUANTIZATION_VERSION = 2  # of ggml's block layouts (GGML_QNT_VERSION)
_VERSION = 1
_MAX_PARTS = 1 << 16  # split.no is a 16-bit number
# llama.cpp refuses these without importance, except for embeddings and the output.
_NEEDS_IMPORTANCE = {"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of a plan: what it is, what it becomes, and why; ``part`` is its file, from 0."""

    name: str
    shape: tuple[int, ...]
    source_type: str
    type: str
    reason: str
    part: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes that the tensor will take."""
        return prod(self.shape) // self.shape[-1] * dtype(self.type).row_bytes(self.shape[-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """Which calibration weighs the rounding: its digest, and what the file will say of it."""

    digest: str
    file: str
    dataset: str
    entries: int
    chunks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Types for all tensors of one model, in the order they are written.

    The same plan on the same source gives the same bytes. ``header_bytes`` is what the files take besides
    tensors, ``notes`` are sentences for the user.
    """

    preset: str
    file_type: int
    entries: tuple[Entry, ...]
    importance: Importance | None
    header_bytes: int
    alignment: int = 32
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Exact bytes of the file, or of all its parts."""
        return self.header_bytes + sum(_padded(entry.nbytes, self.alignment) for entry in self.entries)

    @property
    def bits_per_weight(self) -> float:
        """Average bits per weight over all tensors."""
        weights = sum(prod(entry.shape) for entry in self.entries)
        return 8 * sum(entry.nbytes for entry in self.entries) / max(weights, 1)

    @property
    def parts(self) -> int:
        """How many files it makes."""
        return max(entry.part for entry in self.entries) + 1

    @property
    def digest(self) -> str:
        """SHA-256 (64 hexadecimal digits) of what decides the bytes: types, order, calibration, parts."""
        decisive = {
            "file_type": self.file_type,
            "importance": self.importance and asdict(self.importance),
            "tensors": [[entry.name, entry.type, entry.part] for entry in self.entries],
        }
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

    def with_types(self, types: Mapping[str, str]) -> Plan:
        """Return the plan with other types for the tensors named. Raises `UsageError` for what cannot be."""
        if unknown := types.keys() - {entry.name for entry in self.entries}:
            raise UsageError(f"the plan has no tensor {min(unknown)!r}")
        changed = [
            replace(entry, type=dtype(types[entry.name]).name, reason="asked for by name")
            if entry.name in types
            else entry
            for entry in self.entries
        ]
        return replace(self, entries=tuple(map(_checked, changed)))

    def without_importance(self, calibration: Calibration | None) -> list[Entry]:
        """Return the entries that need importance and would not get it from ``calibration``."""
        known = set(calibration or ())
        return [
            entry
            for entry in self.entries
            if entry.type != entry.source_type
            and _needs_importance(entry, self.preset)
            and entry.name not in known
        ]

    def metadata(self, model: Model) -> dict[str, Any]:
        """Return the metadata of the file to write: the model's, and what llama-quantize says of its work."""
        changed = ("general.quantization_version", "general.file_type")
        metadata = {key: value for key, value in model.metadata.items() if key not in changed}
        metadata["general.quantization_version"] = np.uint32(_QUANTIZATION_VERSION)
        metadata["general.file_type"] = np.uint32(self.file_type)
        if self.importance:
            metadata["quantize.imatrix.file"] = self.importance.file
            if self.importance.dataset:
                metadata["quantize.imatrix.dataset"] = self.importance.dataset
            metadata["quantize.imatrix.entries_count"] = np.uint32(self.importance.entries)
            if self.importance.chunks:
                metadata["quantize.imatrix.chunks_count"] = np.uint32(self.importance.chunks)
        return metadata

    def to_json(self) -> str:
        """Return the plan as JSON that can be edited: change a tensor's ``type``, and the size follows."""
        head = {"terazi_plan": _VERSION, "size": self.size, "digest": self.digest}
        tensors = ",\n    ".join(json.dumps(asdict(entry)) for entry in self.entries)
        fields = asdict(self)
        del fields["entries"]
        text = json.dumps(head | fields, indent=2)
        return f'{text[:-2]},\n  "tensors": [\n    {tensors}\n  ]\n}}\n'

    @staticmethod
    def from_json(text: str | bytes, *, where: str = "plan") -> Plan:
        """Read a plan back; ``size`` and ``digest`` are computed again. Raises `FormatError`."""
        try:
            fields = json.loads(text)
            if fields["terazi_plan"] != _VERSION:
                raise FormatError(where, f"plan version {fields['terazi_plan']} is not known")
            importance = fields["importance"]
            return Plan(
                preset=find_preset(fields["preset"]).name,
                file_type=int(fields["file_type"]),
                entries=tuple(_checked(_entry(value)) for value in fields["tensors"]),
                importance=importance and Importance(**importance),
                header_bytes=int(fields["header_bytes"]),
                alignment=int(fields["alignment"]),
                notes=tuple(map(str, fields["notes"])),
            )
        except UsageError as error:
            raise FormatError(where, error.message, hint=error.hint) from None
        except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
            problem = f"not a plan ({error!s:.80})"
            raise FormatError(where, problem, hint="make one with --save-plan") from None


def make_plan(
    model: Model,
    preset: str,
    *,
    calibration: Calibration | None = None,
    keep_split: bool = False,
    **options: Any,
) -> Plan:
    """Resolve a preset for one GGUF model (`terazi.convert.gguf.to_gguf` makes one of others).

    ``options`` are the fields of `Recipe`: ``overrides``, ``token_embedding_type``, ``output_tensor_type``,
    ``pure``, ``leave_output_tensor``. ``keep_split`` makes as many files as the source has.
    Raises `UsageError` when a tensor's rows fit neither its type nor a replacement.
    """
    recipe = Recipe(preset=find_preset(preset), **options)
    if keep_split and (len(model.files) < 2 or not detect(model.files[0])):
        raise UsageError(f"{model.path} is no split GGUF file: there is no split to keep")
    parts = tensor_parts(model.files) if keep_split else None
    names = list(model.tensors) if parts else sorted(model.tensors, key=loader_order)
    tensors = [model.tensors[name] for name in names]
    facts = Facts.of(model.config, names, importance=calibration is not None)
    schemes = recipe.schemes(tensors, facts)
    entries = [
        Entry(t.name, plain_shape(t.shape), t.type, scheme.type, scheme.reason, parts[t.name] if parts else 0)
        for t, scheme in zip(tensors, schemes, strict=True)
    ]
    plan = Plan(
        preset=recipe.preset.name,
        file_type=recipe.preset.file_type,
        entries=tuple(entries),
        importance=_importance(calibration),
        header_bytes=0,
        alignment=int(model.metadata.get("general.alignment", 32)),
    )
    header_bytes = _written_size(plan, model) - plan.size
    return replace(plan, header_bytes=header_bytes, notes=tuple(_notes(plan, recipe, calibration)))


def _importance(calibration: Calibration | None) -> Importance | None:
    if calibration is None:
        return None
    return Importance(
        digest=calibration.digest,
        file=calibration.path.name if calibration.path else "",
        dataset=calibration.datasets[0] if calibration.datasets else "",
        entries=len(calibration),
        chunks=calibration.chunks,
    )


def _written_size(plan: Plan, model: Model) -> int:
    tensors = [
        Tensor(name=e.name, shape=e.shape, type=e.type, read=model.tensors[e.name].read) for e in plan.entries
    ]
    split = {e.name: e.part for e in plan.entries} if plan.parts > 1 else None
    return file_size(plan.metadata(model), tensors, split=split)


def _notes(plan: Plan, recipe: Recipe, calibration: Calibration | None) -> Iterable[str]:
    replaced = [entry for entry in plan.entries if entry.reason.startswith("rows of")]
    if replaced:
        counts = Counter(entry.type for entry in replaced)
        yield (
            f"{len(replaced)} of {len(plan.entries)} tensors have rows that do not fill whole blocks and "
            f"take another type: {', '.join(f'{count} {type}' for type, count in counts.most_common())}"
        )
    lossy = Counter(
        entry.source_type
        for entry in plan.entries
        if dtype(entry.source_type).quantized and entry.type != entry.source_type
    )
    if lossy:
        yield (
            f"the source is already quantized ({', '.join(lossy)}): its rounding error stays and the new one "
            "adds to it; the original F16, BF16 or F32 model gives a better file of the same size"
        )
    for pattern, _ in recipe.overrides:
        if not any(re.search(pattern, entry.name) for entry in plan.entries):
            yield f"no tensor's name matches {pattern!r}"
    if unmet := plan.without_importance(calibration):
        yield f"{len(unmet)} tensors need an importance matrix (first: {unmet[0].name}, {unmet[0].type})"
    elif calibration is not None:
        known = set(calibration)
        missing = [entry.name for entry in plan.entries if _could_use(entry) and entry.name not in known]
        if missing:
            yield f"the importance matrix says nothing of {', '.join(missing[:3])}" + (
                f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            )


def _could_use(entry: Entry) -> bool:
    by_role = role(entry.name) in ("output", "token_embedding")
    return entry.type != entry.source_type and dtype(entry.type).importance == "used" and not by_role


def _needs_importance(entry: Entry, preset: str) -> bool:
    if role(entry.name) in ("output", "token_embedding"):
        return dtype(entry.type).importance == "required"
    return entry.type in _NEEDS_IMPORTANCE or (entry.type == "Q2_K" and preset == "Q2_K_S")


def _entry(value: Mapping[str, Any]) -> Entry:
    words = {name: str(value[name]) for name in ("name", "source_type", "type", "reason")}
    shape = tuple(int(axis) for axis in value["shape"])
    if not 0 <= int(value["part"]) < _MAX_PARTS or min(shape) < 1:
        raise ValueError(f"impossible shape or part of {words['name']}")
    return Entry(shape=shape, part=int(value["part"]), **words)


def _checked(entry: Entry) -> Entry:
    kind = dtype(entry.type)
    if entry.type != entry.source_type and kind.importance == "none":
        raise UsageError(f"tensor {entry.name}: {kind.name} is not a type to quantize to")
    if entry.shape[-1] % kind.block_size:
        raise UsageError(
            f"tensor {entry.name}: {kind.name} needs rows in multiples of {kind.block_size}, "
            f"not {entry.shape[-1]}"
        )
    return replace(entry, type=kind.name)


def plain_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Drop leading axes of one, as ggml does when it writes."""
    while len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
    return shape


def expert_count(shape: tuple[int, ...]) -> int:
    """Return how many matrices are stacked: each has importance of its own."""
    return prod(shape[:-2])


def _padded(nbytes: int, alignment: int) -> int:
    return nbytes + -nbytes % alignment
