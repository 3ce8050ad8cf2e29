"""A recipe: how to choose a type for every tensor of whatever model it meets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from terazi.dtypes import dtype
from terazi.errors import UnsupportedError, UsageError
from terazi.quantize.mixture import Mixture, is_quantizable, role, row_fallback

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from terazi.model import Tensor
    from terazi.quantize.mixture import Facts
    from terazi.quantize.presets import Preset

__all__ = ["Recipe", "Scheme"]


@dataclass(frozen=True, slots=True)
class Scheme:
    """How one tensor is encoded, and in a few words why."""

    type: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A preset and what the user wants otherwise.

    ``overrides`` pairs regular expressions with types: the first found in a tensor's name replaces what the
    preset's mixture would choose. ``token_embedding_type`` and ``output_tensor_type`` go before them.
    ``pure`` gives every tensor the preset's default type. ``leave_output_tensor`` keeps ``output.weight``.
    """

    preset: Preset
    overrides: tuple[tuple[str, str], ...] = ()
    token_embedding_type: str | None = None
    output_tensor_type: str | None = None
    pure: bool = False
    leave_output_tensor: bool = False

    def __post_init__(self) -> None:
        for pattern, type in self.overrides:
            try:
                re.compile(pattern)
            except re.error as error:
                raise UsageError(f"{pattern!r} is not a regular expression: {error}") from None
            _target(type)
        for type in (self.token_embedding_type, self.output_tensor_type):
            if type is not None:
                _target(type)
        if self.overrides and not self.preset.default.quantized:
            raise UsageError(
                f"{self.preset.name} gives every tensor the same type; types by name do not apply to it",
                hint="choose a quantized preset such as Q8_0 and override from there",
            )

    def schemes(self, tensors: Sequence[Tensor], facts: Facts) -> list[Scheme]:
        """Choose for every tensor, given in the loader's order.

        Raises `UsageError` that lists the tensors whose rows fit neither the chosen type nor a replacement.
        """
        mixture = Mixture(self.preset, facts)
        chosen = [self._scheme(tensor, mixture) for tensor in tensors]
        for tensor, scheme in zip(tensors, chosen, strict=True):
            if scheme.type != tensor.type and dtype(tensor.type).importance == "none":
                raise UnsupportedError(
                    f"tensor {tensor.name} is stored as {tensor.type} and cannot become {scheme.type}"
                )
        misfits = [
            (tensor, scheme)
            for tensor, scheme in zip(tensors, chosen, strict=True)
            if tensor.columns % dtype(scheme.type).block_size
        ]
        if misfits:
            tensor, scheme = misfits[0]
            raise UsageError(
                f"{scheme.type} needs rows in multiples of {dtype(scheme.type).block_size}, which "
                f"{_listed(tensor.name for tensor, _ in misfits)} have not ({tensor.columns})",
                hint="choose another type for them with --tensor-type REGEX=TYPE, or another preset",
            )
        return chosen

    def _scheme(self, tensor: Tensor, mixture: Mixture) -> Scheme:
        if not is_quantizable(tensor, mixture.facts.architecture):
            return Scheme(tensor.type, "kept")
        if self.leave_output_tensor and tensor.name == "output.weight":
            return Scheme(tensor.type, "kept as asked")
        asked = self._asked_by_role(tensor.name)
        if asked:
            return Scheme(dtype(asked).name, "asked for by role")
        if not self.preset.default.quantized:
            return Scheme(self.preset.type, "preset")
        override = self._override(tensor.name)
        if override:
            wanted, reason = dtype(override).name, "asked for by name"
        elif self.pure:
            wanted, reason = self.preset.type, "preset"
        else:
            output_type = self.output_tensor_type and dtype(self.output_tensor_type).name
            wanted = mixture.type_for(tensor, output_type=output_type)
            reason = "preset" if wanted == self.preset.type else "mixture"
        fitting = row_fallback(wanted, tensor.columns)
        if fitting in (None, wanted):
            return Scheme(wanted, reason)
        return Scheme(fitting, f"rows of {tensor.columns} do not fit {wanted}")

    def _asked_by_role(self, name: str) -> str | None:
        kind = role(name)
        if kind == "output":
            return self.output_tensor_type
        if kind == "token_embedding" and not (name.startswith("per_layer") and self._override(name)):
            return self.token_embedding_type
        return None

    def _override(self, name: str) -> str | None:
        return next((type for pattern, type in self.overrides if re.search(pattern, name)), None)


def _target(type: str) -> None:
    if dtype(type).importance == "none":
        raise UsageError(f"{dtype(type).name} is not a type to quantize to", hint="see `terazi types`")


def _listed(names: Iterable[str], limit: int = 5) -> str:
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
